"""The trash in a camera's root is no new data."""

from __future__ import annotations

import time
from pathlib import Path

from coldchain.collect.watcher import FolderWatcher


def _seen(watcher: FolderWatcher) -> set[str]:
    return {sighting.path for _ in range(5) for sighting in watcher.poll(time.monotonic(), 0.05).sightings}


def test_what_is_cleared_from_the_camera_does_not_arrive_again(tmp_path: Path) -> None:
    """Neither what lies in the trash at the start, nor what is moved there, is seen; what comes back is."""
    trash = tmp_path / ".coldchain-trash/2026-03-01/visit"
    trash.mkdir(parents=True)
    (trash / "old.tiff").write_bytes(b"old")
    (tmp_path / "visit").mkdir()
    (tmp_path / "visit/m.tiff").write_bytes(b"m")
    watcher = FolderWatcher(tmp_path)
    assert _seen(watcher) == {"visit/m.tiff"}
    (tmp_path / "visit/m.tiff").rename(trash / "m.tiff")
    assert _seen(watcher) == set()
    (trash / "m.tiff").rename(tmp_path / "visit/m.tiff")
    assert _seen(watcher) == {"visit/m.tiff"}
    watcher.close()
