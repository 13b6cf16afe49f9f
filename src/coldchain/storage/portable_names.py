"""Names that a destination cannot hold, written so that it can, and back.

Paths are any bytes but NUL (decision 2). S3, and drives that a Windows computer shall read, take fewer; decision 17
says which. What a destination cannot hold is written as `%XX`, the hexadecimal digits of its bytes in upper case. A `%`
of the original's own is written `%25` where it would be read so, and stays elsewhere, so that ordinary names stay:

    a:b.tif      a%3Ab.tif         100%.tif      100%.tif
    CON.tif      %43ON.tif         50%41.tif     50%2541.tif

`%~` begins what was never in the name: the digest of one that was shortened or told apart. A shortened name cannot be
read back but only looked up: the catalog records what each copy is stored as.

Nothing here looks at a file system. Which names a drive takes for the same is told by `folded`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from enum import StrEnum

from coldchain.errors import StorageError


class NameRules(StrEnum):
    """What a destination's names may be."""

    POSIX = "posix"  # any bytes but / and NUL
    WINDOWS = "windows"  # what a Windows computer can open: exFAT, NTFS, FAT, SMB; HFS+ and APFS take these as well
    S3 = "s3"  # keys of objects


PART_LIMIT = 255
"""Longest part of a path, in bytes; by WINDOWS in UTF-16 units. S3 has no such limit, servers that keep files have."""

KEY_LIMIT_BYTES = 896
"""Longest key by S3, which takes 1,024: the rest is left for the store's own prefix and its trash."""

_LONGEST_EXTENSION = 17  # with its dot; what is longer tells nobody a type

# A % that would be read as an escape or before a digest; bytes that are no UTF-8, as os.fsdecode gives them.
_MISREAD = r"%(?=[0-9A-Fa-f]{2}|~)|[\udc80-\udcff]"
# U+F001 to U+F07F are what clients of Windows shares write for forbidden characters, and read back as those.
_FORBIDDEN = r'[\x01-\x1f\x7f"*:<>?\\|\uf001-\uf07f]|[. ](?=/|\Z)'
_DEVICE = r"(?<![^/])(?=(?i:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:[./]|\Z))[A-Za-z]"
_NTFS_OWN = r"\A\$(?=(?i:MFT|MFTMirr|LogFile|Volume|AttrDef|Bitmap|Boot|BadClus|Secure|UpCase|Extend)(?:/|\Z))"
# Control characters and U+FFFE, U+FFFF: XML 1.0, in which S3 lists its keys, has none of them or changes them.
_NOT_IN_XML = r"[\x01-\x1f\x7f-\x9f\ufffe\uffff]"
_READ_AS_SLASH = r"\\"
_NO_KEY = r"\As(?=oap\Z)"

_ESCAPED = {
    NameRules.WINDOWS: re.compile("|".join((_MISREAD, _FORBIDDEN, _DEVICE, _NTFS_OWN))),
    NameRules.S3: re.compile("|".join((_MISREAD, _NOT_IN_XML, _READ_AS_SLASH, _NO_KEY))),
}
_TOLD_APART = re.compile(r"(.*)%~[0-9a-f]{8}(\.[^./]*)?", re.DOTALL)

_WINDOWS_TYPES = frozenset({"vfat", "msdos", "umsdos", "udf", "ufsd", "vboxsf", "fuseblk", "fuse"})
_WINDOWS_FAMILIES = ("exfat", "texfat", "ntfs", "lowntfs", "tntfs", "cifs", "smb", "hfs", "apfs", "vmhgfs")


def rules_of(filesystem_type: str) -> NameRules:
    """The rules of a file system, by its type in `/proc/self/mountinfo`.

    `fuseblk` is ntfs-3g's and exfat-fuse's type, `fuse` ntfs-3g's on an image; what else bears them loses nothing by
    the stricter rules. What is not known has POSIX's.
    """
    driver = filesystem_type.removeprefix("fuse.")
    windows = driver in _WINDOWS_TYPES or driver.startswith(_WINDOWS_FAMILIES)
    return NameRules.WINDOWS if windows else NameRules.POSIX


def stored_name(relative: str, rules: NameRules) -> str:
    """What the file `relative` is called on a store with these rules; a path of as many parts, unless a key was too
    long.

    A part that is too long is cut, and `%~` and 16 hexadecimal digits of the SHA-256 of its original bytes stand before
    its extension; a key that is too long likewise, with those of the whole path as its last part. Which file that is
    only the catalog's record tells, not `original_name`. Every other name comes back by it.

    Parameters
    ----------
    relative : POSIX path below the store's root, as `os.fsdecode` gives it, without `.`, `..` or empty parts; anything
        else raises StorageError.
    """
    if not _is_legal(relative):
        raise StorageError(
            "this name is no path of a file below a store",
            expected="a relative path without empty parts, `.` or `..`",
            path=relative.replace("\0", "%00"),
        )
    plain = os.fsdecode(os.fsencode(relative))
    originals = plain.split("/")
    parts = _escaped(plain, rules).split("/")
    stored = "/".join(
        _shortened(part, original, rules) if _length(part, rules) > PART_LIMIT else part
        for part, original in zip(parts, originals, strict=True)
    )
    if rules is NameRules.S3 and _length(stored, rules) > KEY_LIMIT_BYTES:
        ending = "/" + _digest(plain, 16) + _extension(parts[-1])
        return _cut(stored, KEY_LIMIT_BYTES - _length(ending, rules), rules).rstrip("/") + ending
    return stored


def original_name(stored: str, rules: NameRules) -> str | None:
    """The file that is called `stored` on a store with these rules: the inverse of `stored_name`, after `told_apart`
    too.

    None where the name does not tell: it was shortened, or `stored_name` gives it to no file. By POSIX every name is
    its own original, those that were shortened or told apart among them.
    """
    if rules is NameRules.POSIX:
        return stored
    if not _is_legal(stored):
        return None
    told = _TOLD_APART.fullmatch(stored)
    if told is not None:
        plain = told[1] + (told[2] or "")
        if told_apart(plain, rules) != stored:
            return None
        stored = plain
    original = re.sub(rb"%([0-9A-F]{2})", lambda pair: bytes.fromhex(pair[1].decode("ascii")), os.fsencode(stored))
    relative = os.fsdecode(original)
    return relative if _is_legal(relative) and stored_name(relative, rules) == stored else None


def told_apart(stored: str, rules: NameRules) -> str:
    """A name for `stored` where a file whose name is the same but for its case has that: `%~` and 8 hexadecimal digits
    of the SHA-256 of the stored path before the extension, so that its type is still seen.

    One that becomes too long is cut, and then only the catalog's record tells which file it is; so it is where the
    drive took one of its folders for another in other case.
    """
    folder, slash, name = stored.rpartition("/")
    ending = _digest(stored, 8) + _extension(name)
    stem = name.removesuffix(_extension(name))
    return folder + slash + _cut(stem, PART_LIMIT - _length(ending, rules), rules) + ending


def folded(stored: str) -> str:
    """What is the same for all names that a drive, or a Windows computer that reads it, takes for one: those that
    differ in case or in Unicode normalisation. Some drives tell a few of them apart all the same (ß and ss).
    """
    # Upper case first: NTFS and exFAT compare by it, and dotless i differs from i in lower case only.
    return _normalised(_normalised(stored).upper().casefold())


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def _is_legal(relative: str) -> bool:
    try:
        os.fsencode(relative)
    except UnicodeEncodeError:
        return False
    return "\0" not in relative and not {"", ".", ".."}.intersection(relative.split("/"))


def _escaped(plain: str, rules: NameRules) -> str:
    if rules is NameRules.POSIX:
        return plain
    return _ESCAPED[rules].sub(lambda one: "".join(f"%{byte:02X}" for byte in os.fsencode(one[0])), plain)


def _shortened(part: str, original: str, rules: NameRules) -> str:
    extension = _extension(part)
    ending = _digest(original, 16) + extension
    return _cut(part.removesuffix(extension), PART_LIMIT - _length(ending, rules), rules) + ending


def _digest(name: str, digits: int) -> str:
    return "%~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:digits]


def _extension(name: str) -> str:
    at = name.rfind(".")
    return name[at:] if at > 0 and len(name) - at <= _LONGEST_EXTENSION else ""


def _length(text: str, rules: NameRules) -> int:
    if rules is NameRules.WINDOWS:
        return sum(2 if character > "\uffff" else 1 for character in text)
    return len(os.fsencode(text))


def _cut(text: str, limit: int, rules: NameRules) -> str:
    """The longest beginning of whole characters that is no longer than `limit`."""
    length = 0
    for at, character in enumerate(text):
        length += _length(character, rules)
        if length > limit:
            return text[:at]
    return text
