"""What can be done to the drives of `tests.storage.drives`: cut, pulled out, filled up, damaged."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.bench import wait_until
from tests.storage.drives import Drive

_EXT4_IOC_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING_THE_LOG = 2
_PIECE = 512


def cut(drive: Drive) -> None:
    """The power fails: what was not made durable is lost, and every access is an error."""
    descriptor = os.open(drive.folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING_THE_LOG))
    finally:
        os.close(descriptor)


@contextmanager
def taken_out(drive: Drive) -> Iterator[None]:
    """The drive is not there meanwhile; nothing of it stays in memory."""
    wait_until(lambda: _unmounted(drive.folder), "somebody keeps it busy")
    subprocess.run(["blockdev", "--flushbufs", drive.device], check=True)
    yield
    drive.mount()


def plug_in_again(drive: Drive) -> None:
    """Unmount it, as soon as nobody has anything of it in hand, and mount it again."""
    with taken_out(drive):
        pass


def flip(drive: Drive, content: bytes, at: int) -> None:
    """Flip a bit of the byte `at` of a file's content where it lies on the medium, and nowhere else. The drive may be
    mounted."""
    assert drive.image is not None
    start = at - at % _PIECE
    with drive.image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as blocks:
        found = blocks.find(content[start : start + _PIECE])
        assert found >= 0, "the content is not on the medium"
        blocks[found + at - start] ^= 1


def fill_up(folder: Path, leave_bytes: int) -> Path:
    """A file that leaves only so much room."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while (free := _free_bytes(folder)) > leave_bytes:
            try:
                file.write(bytes(min(1 << 20, free - leave_bytes)))
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                assert error.errno == errno.ENOSPC
                break
    return filler


def use_up_names(folder: Path, leave: int) -> list[Path]:
    """Empty files that leave only so many inodes."""
    made: list[Path] = []
    try:
        while os.statvfs(folder).f_favail > leave:
            made.append(folder / f"filler {len(made)}")
            made[-1].touch()
    except OSError as error:
        assert error.errno == errno.ENOSPC
        made.pop()
    return made


def _unmounted(folder: Path) -> bool:
    return subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode == 0


def _free_bytes(folder: Path) -> int:
    usage = os.statvfs(folder)
    return usage.f_bavail * usage.f_frsize
