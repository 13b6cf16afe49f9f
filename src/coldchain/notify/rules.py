"""Which events a receiver is told, and how often. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from coldchain.model.events import Notice, Severity

DAY_SECONDS = 86_400.0

_RANK = {severity: rank for rank, severity in enumerate((Severity.INFO, Severity.WARNING, Severity.ERROR))}


def rank(severity: Severity) -> int:
    """0 for the least severe, growing."""
    return _RANK[severity]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one receiver is told: events of these kinds, of at least this severity, of these sessions and instruments.

    Kinds, sessions and instruments are patterns as in a shell (`*`, `?`, `[ab]`), case counting. Of sessions and of
    instruments none means all; where some are named, an event that belongs to no session is not told.
    """

    name: str
    kinds: tuple[str, ...] = ("*",)
    minimum: Severity = Severity.WARNING
    sessions: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()

    def wants(self, notice: Notice) -> bool:
        """Whether the receiver is told of that."""
        return (
            rank(notice.event.severity) >= rank(self.minimum)
            and _matches(notice.event.kind, self.kinds)
            and (not self.sessions or _belongs(notice.session_name, self.sessions))
            and (not self.instruments or _belongs(notice.instrument_name, self.instruments))
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a receiver is told.

    Parameters
    ----------
    digest_seconds : what happens so soon after the first event is told in one message; 0: each event has its own.
    most_per_hour : messages in any hour (lines, where `bundles` is False); None: any number. What is more waits.
    give_up_seconds : so old an event is not told any more.
    bundles : whether a message can hold several events. Where it cannot, each is told at once.
    first_pause_seconds, longest_pause_seconds : the pause after a failure; it doubles from the first to the longest.
    """

    digest_seconds: float = 60.0
    most_per_hour: int | None = None
    give_up_seconds: float = DAY_SECONDS
    bundles: bool = True
    first_pause_seconds: float = 2.0
    longest_pause_seconds: float = 300.0

    def pause_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row (at least one)."""
        doublings = min(max(failures - 1, 0), 32)  # beyond any cap; keeps the power finite
        return min(self.first_pause_seconds * 2.0**doublings, self.longest_pause_seconds)


def _belongs(name: str, patterns: Sequence[str]) -> bool:
    return bool(name) and _matches(name, patterns)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
