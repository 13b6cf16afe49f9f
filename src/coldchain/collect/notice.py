"""What a person should read of a tree that is watched, said once while it lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import printable
from coldchain.model.events import Severity

ACCESS_REMEDY = "Give the account that runs Coldchain read permission (and, on folders, execute permission)"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the tree that a person should read once. `path` is relative to the root ("" for the root)."""

    severity: Severity
    kind: str
    message: str
    path: str


class Voice:
    """Says what is wrong with the tree under `root` to `hear`: each kind once for each path, until it is over."""

    def __init__(self, root: Path, hear: Callable[[Notice], None]) -> None:
        self._root = root
        self._hear = hear
        self._said: set[tuple[str, str]] = set()

    def say(self, severity: Severity, kind: str, path: str, found: str, remedy: str) -> None:
        """Say it, unless it was said and is not over."""
        if (kind, path) in self._said:
            return
        self._said.add((kind, path))
        where = printable(f"{self._root}/{path}" if path else str(self._root))
        self._hear(Notice(severity, kind, f"{where}: {printable(found)}. {remedy}", path))

    def say_unreadable(self, path: str, error: OSError) -> None:
        """A file or folder that may not be read."""
        self.say(
            Severity.ERROR, "folder.unreadable", path, f"cannot be read ({error.strerror or error})", ACCESS_REMEDY
        )

    def unsay(self, *kinds: str, path: str = "") -> None:
        """The trouble is over: should it come back, it is worth saying again."""
        for kind in kinds:
            self._said.discard((kind, path))
