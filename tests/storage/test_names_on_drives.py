"""Hostile names on real drives: exFAT and NTFS take their stored names, and list them back to the originals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coldchain.storage.portable_names import NameRules, folded, original_name, rules_of, stored_name, told_apart
from coldchain.storage.readback import filesystem_type
from tests.storage.drives import Drive, MakeDrive, make_drive  # noqa: F401  # a fixture

HOSTILE = [
    "a:b",
    "".join(chr(code) for code in range(1, 128) if chr(code) != "/"),
    "trailing dot./and space ",
    "...",
    "CON.tif",
    "aux/nul/com¹.tar.gz",
    "$MFT",
    "$Extend/$Quota",
    os.fsdecode(bytes(range(128, 192)) + b"/" + bytes(range(192, 256))),
    os.fsdecode(b"half a pair: \xed\xa0\x80"),
    "ü" * 250 + ".tif",
    "😀" * 127,
    "a" * 255,
    "\uffff\ufffe\uf022",
    "100%.tif",
    "100%25.tif",
    "not%~01234567.tif",
    "試料/größe Å µ.xml",
]
PAIRS = [("Movie.tif", "movie.tif"), ("Ωμέγα", "ωΜΈΓΑ"), ("Å.eer", "å.eer"), ("x:Y", "X:y")]


@pytest.fixture(params=["exfat", "ntfs"])
def drive(request: pytest.FixtureRequest, make_drive: MakeDrive) -> Drive:  # noqa: F811
    """Mount an empty drive, of each kind in turn."""
    return make_drive(request.param)


def _rules_at(folder: Path) -> NameRules:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return rules_of(filesystem_type(descriptor))
    finally:
        os.close(descriptor)


def _write(root: Path, stored: str, content: str) -> None:
    (root / stored).parent.mkdir(parents=True, exist_ok=True)
    with (root / stored).open("xb") as file:
        file.write(os.fsencode(content))


def _listed(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): os.fsdecode(path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_hostile_names_come_back_from_a_drive(drive: Drive) -> None:
    """A drive takes every stored name, and after it was taken out lists what gives the original of each file."""
    rules = _rules_at(drive.folder)
    for relative in HOSTILE:
        _write(drive.folder, stored_name(relative, rules), relative)
    drive.unmount()
    drive.mount()
    listed = _listed(drive.folder)
    assert {original_name(stored, rules): content for stored, content in listed.items()} == {n: n for n in HOSTILE}


def test_names_that_differ_in_case_stand_side_by_side(drive: Drive) -> None:
    """Of two names that are one to Windows, the second is told apart, and both come back with their own content."""
    rules = _rules_at(drive.folder)
    for one, other in PAIRS:
        first, second = (stored_name(name, rules) for name in (one, other))
        assert folded(first) == folded(second)
        _write(drive.folder, first, one)
        _write(drive.folder, told_apart(second, rules), other)
    listed = _listed(drive.folder)
    assert len({folded(stored) for stored in listed}) == 2 * len(PAIRS)
    names = {name: name for pair in PAIRS for name in pair}
    assert {original_name(stored, rules): content for stored, content in listed.items()} == names


def test_exfat_takes_names_of_other_case_for_one(make_drive: MakeDrive) -> None:  # noqa: F811
    """What exFAT takes for one name is one when folded, over Latin and Greek letters."""
    folder = make_drive("exfat").folder
    taken: dict[str, str] = {}
    for letter in (chr(code) for code in [*range(0x61, 0x7B), *range(0xC0, 0x250), *range(0x386, 0x400)]):
        try:
            _write(folder, letter, letter)
        except FileExistsError:
            taken[letter] = (folder / letter).read_text(encoding="utf-8")
    assert taken["γ"] == "Γ"
    assert len(taken) > 150
    assert {letter: folded(letter) for letter in taken} == {letter: folded(first) for letter, first in taken.items()}


@pytest.mark.parametrize("name", ["a:b", "a?b", "a\nb", os.fsdecode(b"a\xff"), "a" * 256])
def test_exfat_refuses_what_is_mapped(make_drive: MakeDrive, name: str) -> None:  # noqa: F811
    """The mapping is needed: exFAT refuses these names as they are."""
    folder = make_drive("exfat").folder
    with pytest.raises(OSError, match="Errno"):
        _write(folder, name, "")


def test_ntfs_takes_what_windows_cannot_open(make_drive: MakeDrive) -> None:  # noqa: F811
    """A drive's own refusal is no guide: ntfs-3g takes names that Windows cannot open, and pairs that it confuses."""
    folder = make_drive("ntfs").folder
    for name in ("a:b", "a?b", "dot.", "CON", "x", "X"):
        _write(folder, name, name)
    assert _listed(folder) == {name: name for name in ("a:b", "a?b", "dot.", "CON", "x", "X")}
