"""Which events a rule is about: events, exceptions and filters, as iwatch means them.

Where iwatch is wrong it is not followed: an exception holds for whole path components (`/w/skip` is not `/w/skipper`),
a filter chooses what is reported and never which folders are watched, and each rule holds by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from inotify_simple import flags

from coldchain.collect.event_names import KINDS, TOLD_ANYWAY
from coldchain.collect.file_event import FileEvent
from coldchain.collect.iwatch_config import PathRule, WatchConfig
from coldchain.collect.name_pattern import MATCH_SECONDS, NamePattern

_UNDECIDED = (
    "the regular expression {source!r} is not decided after {seconds:g} s for some names; these are reported. "
    "Write it without repetitions inside repetitions"
)


class Exceptions:
    """What is not to be watched, over all rules. Compared by absolute paths.

    A path hides itself and all beneath it. A pattern hides the names in which it is found, and keeps out of the folders
    in whose whole path it is found.
    """

    def __init__(self, config: WatchConfig, notice: Callable[[str], None]) -> None:
        self._paths = frozenset(_absolute(path) for path in config.exceptions)
        self._patterns = config.patterns
        self._notice = notice

    def keep_out_of(self, folder: str) -> bool:
        """Whether a folder is not entered."""
        path = _absolute(folder)
        return self._is_beneath(path) or any(is_found(pattern, path, self._notice) for pattern in self._patterns)

    def hide(self, path: str) -> bool:
        """Whether what happens to a path is not reported."""
        if not self._paths and not self._patterns:
            return False
        absolute = _absolute(path)
        name = absolute.rpartition("/")[2]
        return self._is_beneath(absolute) or any(is_found(pattern, name, self._notice) for pattern in self._patterns)

    def _is_beneath(self, path: str) -> bool:
        while self._paths:
            if path in self._paths:
                return True
            if path == "/":
                break
            path = path.rpartition("/")[0] or "/"
        return False


@dataclass(frozen=True, slots=True)
class Happening:
    """What a rule is to act on. `path` and `old_path` are spelled as the rule spells its own."""

    rule: PathRule
    mask: int
    path: str
    old_path: str
    cookie: int
    is_found: bool


class RuleKeeper:
    """One rule, and what it remembers: with `oneshot`, which folders have had their shot."""

    def __init__(self, rule: PathRule, notice: Callable[[str], None]) -> None:
        self.rule = rule
        self._notice = notice
        self._shot: set[str] = set()

    def judge(self, event: FileEvent, exceptions: Exceptions) -> Happening | None:
        """What to act on, or None where the rule is not about that event."""
        event = self._as_arrival(event)
        rule = self.rule
        if not event.mask & rule.events & (KINDS | TOLD_ANYWAY):
            return None
        path = spelled(rule.path, event.path)
        if exceptions.hide(path):
            return None
        # None: not decided, and what may be wanted is not passed over.
        if (
            rule.filter is not None
            and is_found(rule.filter, path.rpartition("/")[2], self._notice, undecided=True) is False
        ):
            return None
        if rule.events & flags.ONESHOT:
            folder = event.path.rpartition("/")[0]
            if folder in self._shot:
                return None
            self._shot.add(folder)
        old_path = "" if event.old_path is None else spelled(rule.path, event.old_path)
        return Happening(rule, event.mask, path, old_path, event.cookie, event.is_found)

    def _as_arrival(self, event: FileEvent) -> FileEvent:
        """Who asks only for what is moved in is told of what a listing found, too: it may have been moved in."""
        asked = self.rule.events
        only_moves = asked & flags.MOVED_TO and not asked & (flags.CREATE | flags.CLOSE_WRITE)
        if event.is_found and event.mask & flags.CREATE and only_moves:
            return event._replace(mask=event.mask & ~int(flags.CREATE) | int(flags.MOVED_TO))
        return event


def spelled(root: str, relative: str) -> str:
    """A path as the rule spells it; never one that a command could take for an option."""
    path = f"{root.rstrip('/')}/{relative}" if relative else root
    return f"./{path}" if path.startswith("-") else path


def _absolute(path: str) -> str:
    # Not resolved: an exception is for the name that was written, wherever it leads.
    return os.path.abspath(path)  # noqa: PTH100


def is_found(pattern: NamePattern, text: str, notice: Callable[[str], None], *, undecided: bool = False) -> bool:
    """Whether a pattern is found; `undecided`, which is said, where that takes too long."""
    found = pattern.found_in(text)
    if found is None:
        notice(_UNDECIDED.format(source=pattern.source, seconds=MATCH_SECONDS))
        return undecided
    return found
