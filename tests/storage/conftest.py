"""Stores on real file systems: small tmpfs, and ext4 on a loop device whose medium a test can damage."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.storage import readback
from coldchain.storage.posix import incoming as posix_incoming
from coldchain.storage.posix.store import PosixStore
from tests.faults.bench import wait_until
from tests.storage.s3_servers import (  # noqa: F401  # fixtures
    moto,
    no_other_certificates,
    on_moto,
    on_rclone,
    own_rclone,
    place,
    rclone,
)

MakeStore = Callable[[str], PosixStore]
MakeTmpfs = Callable[..., Path]


@dataclass(frozen=True)
class Medium:
    """An ext4 file system at `folder`, whose blocks are the bytes of the file `image`."""

    folder: Path
    image: Path

    def flip(self, content: bytes) -> None:
        """Flip one bit of the one place on the medium where these bytes lie."""
        os.sync()
        with self.image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as blocks:
            at = blocks.find(content)
            assert at >= 0, "the content is not on the medium"
            assert blocks.find(content, at + 1) < 0, "the content is there twice"
            blocks[at] ^= 1


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Make a store in a new folder."""

    def make(name: str) -> PosixStore:
        root = tmp_path / "stores" / name
        root.mkdir(parents=True)
        return PosixStore(name, root)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> PosixStore:
    """One store in a new folder."""
    return make_store("raid")


def _mounted(arguments: list[str], folder: Path) -> None:
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount ({done.stderr.strip()}): needs root with CAP_SYS_ADMIN")


def _require_mounting(*programs: str) -> None:
    if os.geteuid():
        pytest.skip("needs root, to mount file systems")
    for program in programs:
        if shutil.which(program) is None:
            package = {"mkfs.ext4": "e2fsprogs", "mount": "mount"}[program]
            pytest.skip(f"needs {program} (Debian package {package})")


@pytest.fixture
def make_tmpfs(tmp_path: Path) -> Iterator[MakeTmpfs]:
    """Mount a tmpfs of a stated size and number of inodes."""
    _require_mounting("mount")
    folders: list[Path] = []

    def make(name: str, *, size_bytes: int, inodes: int = 1000) -> Path:
        folder = tmp_path / name
        _mounted(["-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={inodes}", "tmpfs"], folder)
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _ext4(folder: Path, image: Path, size_bytes: int) -> Medium:
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", str(image)], check=True)
    _mounted(["-o", "loop", str(image)], folder)
    return Medium(folder, image)


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Medium]:
    """Mount an ext4 of 48 MiB on a loop device."""
    _require_mounting("mount", "mkfs.ext4")
    made = _ext4(tmp_path / "disk", tmp_path / "disk.img", 48 << 20)
    yield made
    # The helper of a store over SSH ends a moment after the test, and holds the folder until it has.
    wait_until(lambda: subprocess.run(["umount", str(made.folder)], check=False, capture_output=True).returncode == 0)


@pytest.fixture
def failing_medium(tmp_path: Path, make_tmpfs: MakeTmpfs) -> Iterator[Medium]:
    """Mount an ext4 that believes to have 48 MiB on a device that answers EIO after about 12."""
    _require_mounting("mount", "mkfs.ext4")
    made = _ext4(tmp_path / "bad", make_tmpfs("beneath", size_bytes=12 << 20) / "bad.img", 48 << 20)
    yield made
    subprocess.run(["umount", "-l", str(made.folder)], check=True)


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def catalog(tmp_path: Path, _migrated: bytes) -> Iterator[Catalog]:
    """A new catalog."""
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(_migrated)
    opened = open_catalog(f"sqlite:///{path}", "here")
    yield opened
    opened.close()


@pytest.fixture
def refuse_direct(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make every file system refuse O_DIRECT, as some do."""

    def open_without(folder: int, name: str) -> tuple[int, bool]:
        return os.open(name, os.O_RDONLY, dir_fd=folder), False

    def refuse() -> None:
        monkeypatch.setattr(posix_incoming, "set_direct", lambda descriptor, *, on: False)
        monkeypatch.setattr(readback, "_open_past_cache", open_without)

    return refuse
