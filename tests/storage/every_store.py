"""The stores that the one suite is run on: a line in `MAKERS` for each, and what each can do beside its interface."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from coldchain.storage.memory import MemoryStore
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.store import Store
from coldchain.storage.wrappers.retrying import Retrying
from coldchain.storage.wrappers.throttled import Limit, Throttled


@dataclass(frozen=True)
class Subject:
    """A store to be tested, empty and without an identity.

    `flip` damages a byte of a stored file behind the store's back, `swap` puts an empty store without an identity in
    its place; None where a test cannot. `again` is another object for the same store, as after a restart.
    """

    store: Store
    again: Callable[[], Store]
    flip: Callable[[str, int], None] | None = None
    swap: Callable[[], None] | None = None
    keeps_modes: bool = True
    time_step_ns: int = 1


def flipped_in(root: Path) -> Callable[[str, int], None]:
    """Flips a byte of a file in a folder tree."""

    def flip(stored_as: str, at: int) -> None:
        with (root / stored_as).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    return flip


def swapped_for_empty(root: Path) -> Callable[[], None]:
    """Puts an empty folder in a folder's place, as when a drive is unmounted."""

    def swap() -> None:
        root.rename(root.with_name(root.name + "-away"))
        root.mkdir()

    return swap


def in_folder(root: Path, *, keeps_modes: bool = True, time_step_ns: int = 1) -> Subject:
    """A folder tree."""
    root.mkdir()
    return Subject(
        PosixStore("raid", root),
        again=lambda: PosixStore("raid", root),
        flip=flipped_in(root),
        swap=swapped_for_empty(root),
        keeps_modes=keeps_modes,
        time_step_ns=time_step_ns,
    )


def _folder(request: pytest.FixtureRequest) -> Subject:
    return in_folder(request.getfixturevalue("tmp_path") / "raid")


def _drive(kind: str, *, keeps_modes: bool, time_step_ns: int) -> Callable[[pytest.FixtureRequest], Subject]:
    def make(request: pytest.FixtureRequest) -> Subject:
        drive = request.getfixturevalue("make_drive")(kind, size_bytes=64 << 20)
        return in_folder(drive.folder / "store", keeps_modes=keeps_modes, time_step_ns=time_step_ns)

    return make


def _memory(request: pytest.FixtureRequest) -> Subject:
    store = MemoryStore("memory")
    return Subject(store, again=lambda: store, flip=store.flip, swap=store.swap)


def _throttled(request: pytest.FixtureRequest) -> Subject:
    inner = _folder(request)
    return replace(
        inner,
        store=Throttled(inner.store, Limit(500e6)),
        again=lambda: Throttled(inner.again(), Limit(None)),
    )


def _retrying(request: pytest.FixtureRequest) -> Subject:
    inner = _folder(request)
    return replace(inner, store=Retrying(inner.store), again=lambda: Retrying(inner.again()))


def elsewhere(module: str, function: str) -> Callable[[pytest.FixtureRequest], Subject]:
    """A maker in a test module that may not be there."""

    def make(request: pytest.FixtureRequest) -> Subject:
        try:
            found = importlib.import_module(f"tests.storage.{module}")
        except ModuleNotFoundError as error:
            pytest.skip(f"needs {error.name}")
        tested = getattr(found, function)(request)
        assert isinstance(tested, Subject)
        return tested

    return make


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Subject]] = {
    "folder": _folder,
    "ext4": _drive("ext4", keeps_modes=True, time_step_ns=1),
    "exfat": _drive("exfat", keeps_modes=False, time_step_ns=2_000_000_000),
    "ntfs": _drive("ntfs", keeps_modes=False, time_step_ns=100),
    "memory": _memory,
    "s3-rclone": elsewhere("s3_servers", "subject_on_rclone"),
    "s3-moto": elsewhere("s3_servers", "subject_on_moto"),
    "throttled": _throttled,
    "retrying": _retrying,
    "ssh": elsewhere("ssh_servers", "ssh_subject"),
}


def identity(number: int) -> UUID:
    """An identity that no other number gives."""
    return UUID(int=number)
