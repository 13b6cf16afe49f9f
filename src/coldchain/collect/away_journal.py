"""What is waited for while the catalog does not answer, noted in a local file and told when it answers again.

The files themselves need no journal: they stand in their folder, and whoever starts finds them there. What a kill
during the outage would lose is what is there no more: that a file came, when, and how large it was. So each is noted
once, as soon as the catalog refuses, and the file is removed when all of it has been told (docs/decisions/0024).

A line is a JSON list: time (ISO 8601, UTC), size in bytes, path relative to the root. A line that was cut by a power
failure is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from coldchain.collect.notice import Notice
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.identity import digest_of, is_safe_relative

_MOST_NAMED = 10
_LONGEST_LINE = 1 << 16
_MOST_LINES = 1_000_000


class Noted(NamedTuple):
    """A file that was waited for: since when, and how large it was then."""

    since: datetime
    size_bytes: int


class AwayJournal:
    """The journal of one root. Its owner is one thread.

    Parameters
    ----------
    file : where it is kept; its folder is there. There is no file while there is nothing to tell.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._noted: dict[str, Noted] = {}

    @property
    def noted(self) -> Mapping[str, Noted]:
        """What has not been told yet, by its path relative to the root."""
        return self._noted

    def read(self) -> None:
        """Take over what an earlier process has noted and not told. Raises OSError."""
        try:
            with self._file.open("rb") as stream:
                for _ in range(_MOST_LINES):
                    line = stream.readline(_LONGEST_LINE)
                    if not line:
                        return
                    for path, noted in _parsed(line):
                        self._noted.setdefault(path, noted)
        except FileNotFoundError:
            return

    def note(self, waited_for: Mapping[str, int]) -> None:
        """Note these files, by path with their sizes in bytes, but for those that are noted. On the medium on return.

        Raises OSError; what could not be written is known all the same while this process lives.
        """
        now = datetime.now(UTC)
        new = {path: Noted(now, size) for path, size in waited_for.items() if path not in self._noted}
        if not new:
            return
        self._noted.update(new)
        lines = "".join(f"{json.dumps([now.isoformat(), size, path])}\n" for path, (_, size) in new.items())
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            if os.fstat(descriptor).st_size:
                stream.write(b"\n")  # what stands there may end in the middle of a line
            stream.write(lines.encode("ascii"))
            stream.flush()
            os.fsync(descriptor)

    def clear(self) -> None:
        """All of it has been told. Raises OSError."""
        self._noted.clear()
        self._file.unlink(missing_ok=True)


def journal_file(folder: Path, root: Path) -> Path:
    """Where the journal of a root is kept in a folder: a name that no other root's has."""
    return folder / f".coldchain.away-{digest_of({'root': str(root)})[:16]}"


def told(root: Path, noted: Mapping[str, Noted], gone: Collection[str], until: datetime) -> Notice:
    """In words, what was waited for under a root while the catalog did not answer, and what of it is gone. Pure."""
    since = min(each.since for each in noted.values())
    count = "one file was" if len(noted) == 1 else f"{len(noted)} files were"
    said = (
        f"the catalog did not answer from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC; {count} waited "
        f"for under {printable(str(root))} meanwhile"
    )
    if not gone:
        now = "is taken now" if len(noted) == 1 else "are taken now"
        return Notice(Severity.INFO, "catalog.back", f"{said}, and {now}", "")
    names = ", ".join(
        f"{printable(path)} ({noted[path].size_bytes:,} bytes, {noted[path].since:%H:%M:%S})"
        for path in sorted(gone)[:_MOST_NAMED]
    )
    more = f" and {len(gone) - _MOST_NAMED} more" if len(gone) > _MOST_NAMED else ""
    said = f"{said}. Gone again before it could be taken: {names}{more}. Bring back what was more than temporary"
    return Notice(Severity.WARNING, "catalog.back", said, "")


def _parsed(line: bytes) -> Iterator[tuple[str, Noted]]:
    """What a line says; nothing where it is none."""
    try:
        since, size, path = json.loads(line.decode("ascii"))
        at = datetime.fromisoformat(since).astimezone(UTC)
        is_path = b"\0" not in os.fsencode(path) and str(PurePosixPath(path)) == path
    except (ValueError, TypeError, OverflowError, RecursionError):
        return
    if is_path and is_safe_relative(PurePosixPath(path)) and isinstance(size, int):
        yield path, Noted(at, size)
