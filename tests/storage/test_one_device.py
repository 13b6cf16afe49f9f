"""Stores that lie on one device are named together; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldchain.storage.one_device import together
from coldchain.storage.sections import StoreSection


def section(name: str, folder: Path) -> StoreSection:
    """A store in a folder."""
    return StoreSection(name=name, url=str(folder))


def test_stores_on_one_device_are_named(tmp_path: Path) -> None:
    """Two or more folders of one file system make a sentence; a store that is not there, on another host or in a bucket
    is in none."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    stores = [section("live", tmp_path / "a"), section("gone", tmp_path / "missing")]
    stores += [StoreSection(name="away", url="ssh://me@host/a"), StoreSection(name="bucket", url="s3://bucket/a")]
    assert together(stores) == []
    [words] = together([*stores, section("tape", tmp_path / "b")])
    assert words.startswith("The stores live and tape lie on one device")


def test_stores_on_devices_of_their_own_are_not_named(tmp_path: Path) -> None:
    """Each on another file system: nothing is said."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    assert together([section("live", tmp_path), section("tape", memory)]) == []
