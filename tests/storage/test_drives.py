"""The drives that the other tests use are what they are asked to be."""

from __future__ import annotations

import errno
import os

import pytest

from tests.storage.drives import MakeDrive, make_drive  # noqa: F401  # a fixture

CONTENT = b"found nowhere else on this drive: " + bytes(range(256)) * 64


@pytest.mark.parametrize("kind", ["ext4", "exfat", "ntfs"])
def test_a_bit_flipped_on_the_medium_is_read(make_drive: MakeDrive, kind: str) -> None:  # noqa: F811
    """A flipped bit is in what is read afterwards, and nothing else is changed."""
    drive = make_drive(kind)
    file = drive.folder / "movie.tif"
    file.write_bytes(CONTENT)
    drive.flip(CONTENT)
    assert file.read_bytes() == bytes([CONTENT[0] ^ 1]) + CONTENT[1:]


@pytest.mark.parametrize("kind", ["ext4", "exfat", "ntfs", "tmpfs"])
def test_a_drive_is_as_large_as_asked(make_drive: MakeDrive, kind: str) -> None:  # noqa: F811
    """A drive takes no more than its size."""
    folder = make_drive(kind, size_bytes=8 << 20).folder
    with pytest.raises(OSError, match="No space left") as full, (folder / "x").open("wb", buffering=0) as file:
        for _ in range(9):
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_drive_has_as_many_inodes_as_asked(make_drive: MakeDrive, kind: str) -> None:  # noqa: F811
    """A drive takes no more files than it has inodes."""
    folder = make_drive(kind, inodes=40).folder
    with pytest.raises(OSError, match="No space left"):
        for number in range(60):
            (folder / str(number)).touch()
