"""Drives as users bring them: file systems of a stated type on loop devices, and tmpfs of a stated size.

A test file takes the fixture with `from tests.storage.drives import make_drive  # noqa: F401`.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

_PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "mkfs.exfat": "exfatprogs",
    "mount.exfat-fuse": "exfat-fuse",
    "mkfs.ntfs": "ntfs-3g",
    "ntfs-3g": "ntfs-3g",
    "losetup": "mount",
    "mount": "mount",
}
_MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard"],
    "exfat": ["mkfs.exfat"],
    "ntfs": ["mkfs.ntfs", "-Q", "-q"],
}
_MOUNTERS = {"ext4": ["mount", "-t", "ext4"], "exfat": ["mount.exfat-fuse"], "ntfs": ["ntfs-3g"]}


class MakeDrive(Protocol):
    """What the fixture `make_drive` gives."""

    def __call__(self, kind: str, *, size_bytes: int = 32 << 20, inodes: int | None = None) -> Drive:
        """Make and mount an empty drive; the test skips, with the reason, where this machine cannot.

        `kind` is ext4, exfat, ntfs or tmpfs; `inodes` counts for ext4 and tmpfs.
        """


@dataclass(frozen=True)
class Drive:
    """A file system at `folder`; its blocks are those of `device` and the bytes of the file `image`, if not tmpfs."""

    kind: str
    folder: Path
    image: Path | None = None
    device: str = ""

    def mount(self) -> None:
        """Mount it again."""
        _mounted([*_MOUNTERS[self.kind], self.device, str(self.folder)])

    def unmount(self) -> None:
        """Take it out: everything is written, and nothing of it stays in memory."""
        subprocess.run(["umount", str(self.folder)], check=True)
        if self.device:
            subprocess.run(["blockdev", "--flushbufs", self.device], check=True)

    def flip(self, content: bytes) -> None:
        """Flip one bit of the one place on the medium where these bytes lie; it is unmounted meanwhile."""
        assert self.image is not None
        self.unmount()
        with self.image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as blocks:
            at = blocks.find(content)
            assert at >= 0, "the content is not on the medium"
            assert blocks.find(content, at + 1) < 0, "the content is there twice"
            blocks[at] ^= 1
        self.mount()


@pytest.fixture
def make_drive(tmp_path: Path) -> Iterator[MakeDrive]:
    """Mount drives of a stated kind and size."""
    drives: list[Drive] = []

    def make(kind: str, *, size_bytes: int = 32 << 20, inodes: int | None = None) -> Drive:
        folder = tmp_path / f"{kind}-{len(drives)}"
        folder.mkdir()
        if kind == "tmpfs":
            drive = _tmpfs(folder, size_bytes, inodes)
        else:
            drive = _on_loop(kind, folder, size_bytes, [] if inodes is None else ["-N", str(inodes)])
        drives.append(drive)
        return drive

    yield make
    for drive in drives:
        if drive.folder.is_mount():
            subprocess.run(["umount", "-l", str(drive.folder)], check=True)
        if drive.device:
            subprocess.run(["losetup", "--detach", drive.device], check=True)


def _tmpfs(folder: Path, size_bytes: int, inodes: int | None) -> Drive:
    _require("mount")
    options = f"size={size_bytes}" + ("" if inodes is None else f",nr_inodes={inodes}")
    _mounted(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)])
    return Drive("tmpfs", folder)


def _on_loop(kind: str, folder: Path, size_bytes: int, options: list[str]) -> Drive:
    _require("losetup", _MAKERS[kind][0], _MOUNTERS[kind][0])
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    found = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"this machine gives no loop device ({found.stderr.strip()})")
    drive = Drive(kind, folder, image, found.stdout.strip())
    try:
        subprocess.run([*_MAKERS[kind], *options, drive.device], check=True, capture_output=True)
        drive.mount()
    except BaseException:  # a skip as well
        subprocess.run(["losetup", "--detach", drive.device], check=True)
        raise
    return drive


def _mounted(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount ({done.stderr.strip()}): needs root with CAP_SYS_ADMIN")


def _require(*programs: str) -> None:
    if os.geteuid():
        pytest.skip("needs root, to mount file systems")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian package {_PACKAGES[program]})")
    if not Path("/dev/fuse").exists() and any(program.endswith(("-fuse", "-3g")) for program in programs):
        pytest.skip("needs /dev/fuse")
