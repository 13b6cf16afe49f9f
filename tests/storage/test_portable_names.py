"""Names that a destination cannot hold are written so that it can, and come back."""

from __future__ import annotations

import hashlib
import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coldchain.errors import StorageError
from coldchain.storage.portable_names import (
    KEY_LIMIT_BYTES,
    PART_LIMIT,
    NameRules,
    folded,
    original_name,
    rules_of,
    stored_name,
    told_apart,
)

MAPPED = (NameRules.WINDOWS, NameRules.S3)
ORDINARY = [
    "alice/2x/GridSquare_1/FoilHole_1_Data_2_20250102_030405_Fractions.tiff",
    "100%.tif",
    "a%b/%/%%/5%-off.mrc",
    "größe Å µ 試料.xml",
    "with space/.hidden/..two/a.b.c",
    "it's (1), [2] {3} & #4 @5 ~6 ^7 `8` + = ; ! $.eer",
    "CONE.tif",
    "com/lpt/com10/nul_1",
]

# What the rules turn on, often enough side by side, among any bytes at all.
PIECES = st.sampled_from(
    rb"% %4 %41 %%41 %25 %~ ~ 3A : . \ CON nul soap $MFT a A .tif %~0123456789abcdef %~01234567".split(b" ")
) | st.sampled_from(
    [
        *(character.encode() for character in "\x85\uffff\uf022"),
        b"COM\xc2\xb9",
        b"\xff",
        b"\xc3",
        b"\xbc",
        b"\xc3\xbc",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b" ",
        b"\r",
        b"\x7f",
    ]
)
PARTS = st.lists(PIECES | st.binary(min_size=1, max_size=3), min_size=1, max_size=6).map(
    lambda pieces: b"".join(pieces).translate(None, b"/\0")
)
PATHS = (
    st.lists(PARTS.filter(lambda part: part not in (b"", b".", b"..")), min_size=1, max_size=4)
    .map(b"/".join)
    .map(os.fsdecode)
)


def _forbidden(stored: str, rules: NameRules) -> list[str]:
    if rules is NameRules.S3:
        return re.findall(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff\ufffe\uffff]", stored)
    device = r"(?i)^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])$"
    return re.findall(r'[\x00-\x1f"*:<>?\\|\ud800-\udfff]', stored) + [
        part
        for place, part in enumerate(stored.split("/"))
        if part[-1] in ". "
        or re.match(device, part.split(".")[0].rstrip(" "))
        or (place == 0 and part.lower() == "$mft")
    ]


@given(PATHS, st.sampled_from(NameRules))
@example("%" + os.fsdecode(b"\xc3") + "A", NameRules.WINDOWS)
@example("%4:/%~:/%25~", NameRules.WINDOWS)
def test_every_path_comes_back(relative: str, rules: NameRules) -> None:
    """Every path of any bytes comes back from its stored name."""
    assert original_name(stored_name(relative, rules), rules) == relative


@given(PATHS, st.sampled_from(MAPPED))
def test_a_destination_can_hold_every_stored_name(relative: str, rules: NameRules) -> None:
    """No stored name has anything that its destination forbids."""
    stored = stored_name(relative, rules)
    assert _forbidden(stored, rules) == []
    assert stored.encode("utf-8").decode("utf-8") == stored


@given(PATHS, PATHS, st.sampled_from(NameRules))
def test_two_files_never_have_one_name(one: str, other: str, rules: NameRules) -> None:
    """Two paths have the same stored name only if they are the same path, told apart or not."""
    assert (stored_name(one, rules) == stored_name(other, rules)) == (one == other)
    told = {told_apart(stored_name(path, rules), rules) for path in (one, other)}
    assert len(told) == len({one, other})
    if rules in MAPPED:
        assert told.isdisjoint({stored_name(one, rules), stored_name(other, rules)})


@given(PATHS, st.sampled_from(MAPPED))
def test_a_name_told_apart_comes_back(relative: str, rules: NameRules) -> None:
    """A name that was told apart is still one that its destination holds, and gives its original."""
    told = told_apart(stored_name(relative, rules), rules)
    assert original_name(told, rules) == relative
    assert _forbidden(told, rules) == []


@given(PATHS, st.sampled_from(MAPPED))
def test_a_foreign_name_is_nobodys(listed: str, rules: NameRules) -> None:
    """A listed name is the name of at most one file: of that which would be stored so, or of none."""
    original = original_name(listed, rules)
    if original is not None:
        stored = stored_name(original, rules)
        assert listed in (stored, told_apart(stored, rules))


@pytest.mark.parametrize("rules", NameRules)
@pytest.mark.parametrize("relative", ORDINARY)
def test_ordinary_names_are_unchanged(relative: str, rules: NameRules) -> None:
    """Names as cameras and people make them stay as they are."""
    assert stored_name(relative, rules) == relative


@pytest.mark.parametrize(
    ("relative", "stored"),
    [
        ("a:b.tif", "a%3Ab.tif"),
        ('"*<>?\\|', "%22%2A%3C%3E%3F%5C%7C"),
        ("line\nbreak", "line%0Abreak"),
        ("dir./file. ", "dir%2E/file.%20"),
        ("...", "..%2E"),
        ("CON.tif", "%43ON.tif"),
        ("x/nul/com¹.tar.gz", "x/%6Eul/%63om¹.tar.gz"),
        ("LPT1 .txt", "%4CPT1 .txt"),
        ("conin$", "%63onin$"),
        ("$MFT", "%24MFT"),
        ("x/$MFT", "x/$MFT"),
        (os.fsdecode(b"gr\xfc\xdfe"), "gr%FC%DFe"),
        ("50%41.tif", "50%2541.tif"),
        ("%3a", "%253a"),
        ("a%~b", "a%25~b"),
        ("\uf022", "%EF%80%A2"),
    ],
)
def test_what_a_windows_computer_cannot_open_is_escaped(relative: str, stored: str) -> None:
    """What Windows cannot open is written as the hexadecimal digits of its bytes, the rest stays."""
    assert stored_name(relative, NameRules.WINDOWS) == stored


@pytest.mark.parametrize(
    ("relative", "stored"),
    [
        ("a:b*c?.tif", "a:b*c?.tif"),
        ("a\\b", "a%5Cb"),
        ("\r\n", "%0D%0A"),
        ("\x85\ufffe", "%C2%85%EF%BF%BE"),
        (os.fsdecode(b"\xff"), "%FF"),
        ("soap", "%73oap"),
        ("soap/soap", "soap/soap"),
        ("CON", "CON"),
    ],
)
def test_what_s3_cannot_list_is_escaped(relative: str, stored: str) -> None:
    """What S3's XML or its clients would change is written as the hexadecimal digits of its bytes."""
    assert stored_name(relative, NameRules.S3) == stored


@pytest.mark.parametrize(
    ("rules", "name", "fits"),
    [
        (NameRules.WINDOWS, "ü" * 250 + ".tif", True),
        (NameRules.WINDOWS, "😀" * 127, True),
        (NameRules.WINDOWS, "😀" * 128, False),
        (NameRules.WINDOWS, ":" * 86, False),
        (NameRules.POSIX, "ü" * 127, True),
        (NameRules.POSIX, "ü" * 250 + ".tif", False),
        (NameRules.S3, "ü" * 128, False),
    ],
)
def test_a_name_that_is_too_long_is_shortened_with_its_digest(rules: NameRules, name: str, fits: bool) -> None:
    """A part that does not fit is cut, and bears its own digest before its extension, in every folder the same."""
    stored = stored_name(f"{name}/a/{name}", rules)
    first, _, last = stored.split("/")
    assert first == last
    assert (last == name) is fits
    length = len(last.encode("utf-16-le")) // 2 if rules is NameRules.WINDOWS else len(os.fsencode(last))
    assert length <= PART_LIMIT
    if not fits:
        assert "%~" + hashlib.sha256(name.encode()).hexdigest()[:16] in last
        assert last.endswith(".tif") is name.endswith(".tif")
        assert original_name(stored, rules) == (stored if rules is NameRules.POSIX else None)


@given(st.binary(min_size=200, max_size=255), st.sampled_from(NameRules))
def test_every_long_name_fits(content: bytes, rules: NameRules) -> None:
    """Whatever bytes a long name has, its stored name fits, told apart or not."""
    relative = os.fsdecode(content.translate(None, b"/\0") or b"x")
    stored = stored_name(relative, rules)
    for name in (stored, told_apart(stored, rules), told_apart(told_apart(stored, rules), rules)):
        length = len(name.encode("utf-16-le")) // 2 if rules is NameRules.WINDOWS else len(os.fsencode(name))
        assert length <= PART_LIMIT
        assert rules is NameRules.POSIX or _forbidden(name, rules) == []


def test_a_key_that_is_too_long_is_shortened_with_its_digest() -> None:
    """A key that does not fit is cut, and its last part is the digest of the whole path, with the extension."""
    keys = [stored_name("/".join([letter * 200] * 5) + f"/{n}.tif", NameRules.S3) for n in "12" for letter in "aü"]
    assert len(set(keys)) == 4
    for key in keys:
        assert len(key.encode()) <= KEY_LIMIT_BYTES
        assert all(len(part.encode()) <= PART_LIMIT for part in key.split("/"))
        assert re.search(r"[^/]/%~[0-9a-f]{16}\.tif$", key)
        assert original_name(key, NameRules.S3) is None


def test_a_name_told_apart_shows_its_type() -> None:
    """The digest stands before the extension, differs between names of other case, and is that of the path."""
    assert told_apart("s/Movie.tiff", NameRules.WINDOWS) == "s/Movie%~{}.tiff".format(
        hashlib.sha256(b"s/Movie.tiff").hexdigest()[:8]
    )
    assert told_apart("s/movie.tiff", NameRules.WINDOWS).casefold() != told_apart("s/Movie.tiff", NameRules.WINDOWS)
    assert re.fullmatch(r"\.hidden%~[0-9a-f]{8}", told_apart(".hidden", NameRules.WINDOWS))


def test_a_long_name_told_apart_is_not_taken_for_another() -> None:
    """A name that had to be cut to be told apart gives no original, rather than a wrong one."""
    told = told_apart("a" * 255, NameRules.WINDOWS)
    assert len(told) == 255
    assert original_name(told, NameRules.WINDOWS) is None


@pytest.mark.parametrize("listed", ["a:b", "a%3ab.tif", "%41", "CON", "a%2Fb", "%00", "%2E%2E", "x%~0123abcd.tif", ""])
def test_a_name_that_nothing_is_stored_as_has_no_original(listed: str) -> None:
    """Names that somebody else wrote, which would read as another file's, read as nobody's."""
    assert original_name(listed, NameRules.WINDOWS) is None


@pytest.mark.parametrize("rules", NameRules)
@pytest.mark.parametrize("relative", ["", "/a", "a//b", "a/", ".", "a/../b", "./a", "a\0b", "\ud800"])
def test_what_is_no_path_is_refused(relative: str, rules: NameRules) -> None:
    """What is no path below a store is refused, whatever the store."""
    with pytest.raises(StorageError, match="no path of a file below a store"):
        stored_name(relative, rules)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Movie.TIF", "movie.tif", True),
        ("Grün", "Gru\u0308n", True),
        ("ÀÉ", "a\u0300e\u0301", True),
        ("ı", "I", True),
        ("ſ", "s", True),
        ("Σ", "ς", True),
        ("movie1", "movie2", False),
        ("a", "ä", False),
    ],
)
def test_names_that_differ_in_case_only_fold_to_one(one: str, other: str, same: bool) -> None:
    """Case and normalisation do not tell names apart when folded; letters and marks do."""
    assert (folded(one) == folded(other)) is same


@pytest.mark.parametrize(
    ("rules", "types"),
    [
        (NameRules.WINDOWS, "exfat vfat msdos ntfs ntfs3 fuseblk fuse fuse.exfat fuse.ntfs-3g cifs smb3 hfsplus"),
        (NameRules.POSIX, "ext4 xfs btrfs zfs nfs4 lustre gpfs ceph tmpfs fuse.glusterfs fuse.sshfs fusectl 9p"),
    ],
)
def test_the_rules_follow_the_file_system(rules: NameRules, types: str) -> None:
    """Drives and shares that Windows reads have its rules; all others, and what does not tell, have POSIX's."""
    assert {rules_of(name) for name in types.split()} == {rules}
    assert rules_of("") is NameRules.POSIX
