"""Which folders need not be listed again."""

from __future__ import annotations

import pytest

from coldchain.collect.folder_stamps import LIST_ANYWAY, QUIET_SECONDS, FolderStamps

DEVICE = 7


def stamps_of(*, believed: bool = True) -> FolderStamps:
    """Stamps on a file system that is known to keep folders' times, or on another."""
    stamps = FolderStamps()
    if believed:
        stamps.believe(DEVICE)
    return stamps


def listed(stamps: FolderStamps, folder: str, stamp: tuple[int, int], now: float, *, has_changed: bool = False) -> bool:
    """Note a listing; whether the next would be passed over."""
    stamps.note_listing(folder, stamp, now, device=DEVICE, has_changed=has_changed)
    return stamps.is_unchanged(folder, stamp, DEVICE)


def test_a_stamp_is_believed_after_a_listing_that_began_when_it_had_stood_for_a_while() -> None:
    """Not at once, as what is made within the clock's step leaves it as it was; not after a pause without a listing."""
    stamps = stamps_of()
    assert not listed(stamps, "a", (1, 1), 0)
    assert not listed(stamps, "a", (1, 1), QUIET_SECONDS / 2)
    assert listed(stamps, "a", (1, 1), QUIET_SECONDS)
    assert stamps.take_changes() == {"a": (1, 1)}
    assert stamps.take_changes() == {}


def test_either_time_that_differs_is_a_change() -> None:
    """A program that puts the modification time back cannot put back the time of the change."""
    stamps = stamps_of()
    stamps.trust({"a": (1, 2), "b": LIST_ANYWAY})
    assert stamps.is_unchanged("a", (1, 2), DEVICE)
    assert not stamps.is_unchanged("a", (1, 3), DEVICE)
    assert not stamps.is_unchanged("a", (0, 2), DEVICE)
    assert not stamps.is_unchanged("b", LIST_ANYWAY, DEVICE)
    assert not listed(stamps, "a", (1, 3), 0)
    assert not stamps.is_unchanged("a", (1, 2), DEVICE)


def test_a_file_system_has_to_show_that_it_keeps_folders_times() -> None:
    """Not known to, it is not believed, stored stamps neither, until names and a stamp were seen to change together."""
    stamps = stamps_of(believed=False)
    stamps.trust({"a": (1, 1)})
    assert not stamps.is_unchanged("a", (1, 1), DEVICE)
    for now in (0, QUIET_SECONDS):
        assert not listed(stamps, "b", (1, 1), now)
    assert not listed(stamps, "b", (2, 2), 10, has_changed=True)
    assert listed(stamps, "b", (2, 2), 10 + QUIET_SECONDS)
    assert stamps.is_unchanged("a", (1, 1), DEVICE)
    stamps.forget_devices()
    assert not stamps.is_unchanged("a", (1, 1), DEVICE)


@pytest.mark.parametrize("believed", [True, False])
def test_a_file_system_that_does_not_keep_them_is_never_believed(believed: bool) -> None:
    """Names changed under a stamp that had stood: from then on every folder of that device is listed."""
    stamps = stamps_of(believed=believed)
    for now in (0, QUIET_SECONDS):
        listed(stamps, "a", (1, 1), now)
    assert not listed(stamps, "a", (1, 1), 100, has_changed=True)
    assert not listed(stamps, "a", (2, 2), 200, has_changed=True)
    stamps.believe(DEVICE)
    assert not listed(stamps, "a", (2, 2), 300)


def test_what_is_forgotten_is_told_and_begins_anew() -> None:
    """A folder that is gone, or in which a file was not dealt with."""
    stamps = stamps_of()
    stamps.trust({"a": (1, 1), "b": (2, 2)})
    stamps.forget(["a", "never known"])
    assert stamps.take_changes() == {"a": None}
    assert not stamps.is_unchanged("a", (1, 1), DEVICE)
    assert stamps.is_unchanged("b", (2, 2), DEVICE)


def test_what_is_given_back_comes_again_as_long_as_it_holds() -> None:
    """A file was waited for in it: its stamp is given out again later, unless it changed meanwhile."""
    stamps = stamps_of()
    for now in (0, QUIET_SECONDS):
        for folder in ("a", "b"):
            listed(stamps, folder, (1, 1), now)
    assert stamps.take_changes() == {"a": (1, 1), "b": (1, 1)}
    listed(stamps, "b", (9, 9), 100)
    stamps.give_back(["a", "b", "gone"])
    assert stamps.take_changes() == {"a": (1, 1)}
