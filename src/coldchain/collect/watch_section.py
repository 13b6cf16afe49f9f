"""`[[watch]]` of facility.toml → a rule of the watcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from coldchain.collect.argv_command import read_argv
from coldchain.collect.event_names import EVENTS, parse_events
from coldchain.collect.event_tree import SETTLE_SECONDS
from coldchain.collect.iwatch_config import Contact, PathRule, WatchConfig, checked_events, without_slash
from coldchain.collect.name_pattern import NamePattern
from coldchain.errors import UsageError
from coldchain.notify.notifier import Receiver

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FacilityRule:
    """What to watch, and how its commands are run.

    Parameters
    ----------
    config : one path with the exceptions that hold for it alone.
    attempts : how often a command is run at most, until it goes well.
    timeout_seconds : after which one is ended; None: never.
    receiver : who is told of what happens, and of commands that fail for good.
    """

    name: str
    config: WatchConfig
    jobs: int = 1
    attempts: int = 1
    timeout_seconds: float | None = None
    settle_seconds: float = SETTLE_SECONDS
    initial: bool = False
    receiver: Receiver | None = None


def _checked(check: Callable[[_T], object]) -> Callable[[_T], _T]:
    """What raises UsageError, as pydantic's validators have it."""

    def validate(value: _T) -> _T:
        try:
            check(value)
        except UsageError as error:
            raise ValueError(f"{error.expected or 'one that can be used'} ({error.found})") from None
        return value

    return validate


def _check_events(names: Sequence[str]) -> None:
    mask, unknown = parse_events(",".join(names))
    if unknown:
        raise UsageError(f"names of events; {unknown[0]!r} is none. Known: {', '.join(EVENTS)}")
    checked_events(mask)


def _check_path(path: str) -> None:
    if not path or "\0" in path:
        raise UsageError("a path, without a NUL")


Pattern = Annotated[str, AfterValidator(_checked(NamePattern))]
PathText = Annotated[str, AfterValidator(_checked(_check_path))]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class WatchSection(BaseModel):
    """A rule: what happens to the files of a folder is given to a command, told to a receiver, or both."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    path: PathText
    recursive: bool = True
    events: Annotated[tuple[str, ...], AfterValidator(_checked(_check_events))] = ("close_write", "moved_to")
    exceptions: tuple[PathText, ...] = ()
    exception_patterns: tuple[Pattern, ...] = ()
    filter: Pattern | None = None
    exec: Annotated[tuple[str, ...], AfterValidator(_checked(read_argv))] | None = None
    jobs: Annotated[int, Field(ge=1, le=256)] = 1
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    timeout_seconds: Seconds = 3600.0
    settle_seconds: Seconds = SETTLE_SECONDS
    initial: bool = False
    notify: str | None = None

    @model_validator(mode="after")
    def _does_something(self) -> WatchSection:
        if self.exec is None and self.notify is None:
            raise ValueError("exec or notify, or both")
        for exception in self.exceptions:
            root = os.path.normpath(self.path)
            inside = os.path.relpath(os.path.join(root, exception), root)  # noqa: PTH118  # as text
            if inside == "." or inside.split("/")[0] == "..":
                raise ValueError(f"exceptions inside path, or relative to it; {exception!r} is not")
        return self

    def as_rule(self, base: Path, receiver: Receiver | None) -> FacilityRule:
        """The same as values; a relative path, and a program with a slash in it, are relative to `base`."""
        path = without_slash(str(base / self.path))
        argv = None
        if self.exec is not None:
            program = str(base / self.exec[0]) if "/" in self.exec[0] else self.exec[0]
            argv = read_argv((program, *self.exec[1:]))
        rule = PathRule(
            path=path,
            recursive=self.recursive,
            events=parse_events(",".join(self.events))[0],
            command=argv,
            filter=None if self.filter is None else NamePattern(self.filter),
            alert=receiver is not None,
            contact=None if receiver is None else Contact(receiver.rule.name),
            title=self.name,
        )
        exceptions = tuple(str(Path(path) / exception) for exception in self.exceptions)
        return FacilityRule(
            name=self.name,
            config=WatchConfig((rule,), exceptions, tuple(map(NamePattern, self.exception_patterns))),
            jobs=self.jobs,
            attempts=self.attempts,
            timeout_seconds=self.timeout_seconds or None,
            settle_seconds=self.settle_seconds,
            initial=self.initial,
            receiver=receiver,
        )
