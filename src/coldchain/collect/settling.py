"""Files that nobody saw closing: how long each has stood unchanged, on our own clock. Pure."""

from __future__ import annotations

from coldchain.collect.tree_watches import is_inside


class Settling:
    """Paths with the fingerprint that they are to keep for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[str, tuple[int, float]] = {}

    def wait(self, path: str, value: int, now: float) -> None:
        """Wait until it stands still, unless that is being waited for."""
        waiting = self._waiting.get(path)
        if waiting is None or waiting[0] != value:
            self._put_last(path, value, now)

    def stir(self, path: str, now: float) -> None:
        """It is being written to: where it is waited for, the time begins anew."""
        if path in self._waiting:
            self._put_last(path, self._waiting[path][0], now)

    def forget(self, path: str) -> None:
        """It was closed, or is gone."""
        self._waiting.pop(path, None)

    def take_inside(self, folder: str) -> dict[str, int]:
        """Wait no more for a path and what is beneath it; the fingerprints of what was waited for."""
        inside = [path for path in self._waiting if is_inside(path, folder)]
        return {path: self._waiting.pop(path)[0] for path in inside}

    def take_due(self, now: float, most: int) -> list[tuple[str, int]]:
        """What should have stood still for long enough, with the fingerprint that it must have; not waited for now.

        At most so many at a time, those first that have waited longest.
        """
        due: list[tuple[str, int]] = []
        for path, (value, since) in self._waiting.items():
            if now - since < self._seconds or len(due) == most:
                break
            due.append((path, value))
        for path, _ in due:
            del self._waiting[path]
        return due

    def _put_last(self, path: str, value: int, now: float) -> None:
        """Those that wait are kept in the order in which they become due."""
        self._waiting.pop(path, None)
        self._waiting[path] = (value, now)
