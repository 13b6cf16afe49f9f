"""Which folders need not be listed again."""

from __future__ import annotations

from coldchain.collect.folder_stamps import LIST_ANYWAY, QUIET_SECONDS, FolderStamps


def test_a_stamp_is_believed_after_a_listing_that_began_when_it_had_stood_for_a_while() -> None:
    """Not at once, as what is made within the clock's step leaves it as it was; not after a pause without a listing."""
    stamps = FolderStamps()
    stamps.note_listing("a", (1, 1), 0)
    assert not stamps.is_unchanged("a", (1, 1))
    stamps.note_listing("a", (1, 1), QUIET_SECONDS / 2)
    assert not stamps.is_unchanged("a", (1, 1))
    stamps.note_listing("a", (1, 1), QUIET_SECONDS)
    assert stamps.is_unchanged("a", (1, 1))
    assert stamps.take_changes() == {"a": (1, 1)}
    assert stamps.take_changes() == {}


def test_either_time_that_differs_is_a_change() -> None:
    """A program that puts the modification time back cannot put back the time of the change."""
    stamps = FolderStamps()
    stamps.trust({"a": (1, 2), "b": LIST_ANYWAY})
    assert stamps.is_unchanged("a", (1, 2))
    assert not stamps.is_unchanged("a", (1, 3))
    assert not stamps.is_unchanged("a", (0, 2))
    assert not stamps.is_unchanged("b", LIST_ANYWAY)
    stamps.note_listing("a", (1, 3), 0)
    assert not stamps.is_unchanged("a", (1, 2))


def test_what_is_forgotten_is_told_and_begins_anew() -> None:
    """A folder that is gone, or in which a file was not dealt with."""
    stamps = FolderStamps()
    stamps.trust({"a": (1, 1), "b": (2, 2)})
    stamps.forget(["a", "never known"])
    assert stamps.take_changes() == {"a": None}
    assert not stamps.is_unchanged("a", (1, 1))
    assert stamps.is_unchanged("b", (2, 2))


def test_what_is_given_back_comes_again_as_long_as_it_holds() -> None:
    """A file was waited for in it: its stamp is given out again later, unless it changed meanwhile."""
    stamps = FolderStamps()
    for now in (0, QUIET_SECONDS):
        for folder in ("a", "b"):
            stamps.note_listing(folder, (1, 1), now)
    assert stamps.take_changes() == {"a": (1, 1), "b": (1, 1)}
    stamps.note_listing("b", (9, 9), 100)
    stamps.give_back(["a", "b", "gone"])
    assert stamps.take_changes() == {"a": (1, 1)}
