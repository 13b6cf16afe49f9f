"""Events → the words of a message. Pure.

Names and messages are hostile: they hold what a file's name can hold. All of them pass through `one_line`, so that none
can begin a line, a header or a command of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC

from coldchain.errors import printable
from coldchain.model.events import Event, Notice, Severity
from coldchain.notify.rules import rank

SUBJECT_CHARACTERS = 120
TEXT_CHARACTERS = 1000
NAME_CHARACTERS = 100
MOST_LINES = 100
_KINDS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """What is told at once: events, oldest first, and how many of each kind were dropped before and never told."""

    notices: tuple[Notice, ...]
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """A batch in words: a subject and lines, none of which holds a line break or another control character.

    `key` is the same for the same batch.
    """

    subject: str
    lines: tuple[str, ...]
    key: str


def compose(batch: Batch, facility: str) -> Message:
    """The message for a batch of at least one event."""
    shown = _shown(batch.notices)
    lines = [_line(notice) for notice in shown]
    if left_out := _kinds(batch.notices) - _kinds(shown):
        lines.append(f"and {left_out.total()} more: {in_words(left_out)}")
    if batch.lost:
        dropped = sum(batch.lost.values())
        lines.append(
            f"Not told before, and never will be: {dropped} ({in_words(batch.lost)}). See the page and the log."
        )
    subject = one_line(f"[{facility}] {_headline(batch.notices)}", SUBJECT_CHARACTERS)
    return Message(subject, tuple(lines), f"{batch.notices[0].event.id.hex}.{len(batch.notices)}")


def one_line(text: str, characters: int) -> str:
    """The text with control characters escaped, and cut to so many characters."""
    # Cut before as well: a text of megabytes is not escaped to be thrown away.
    clean = printable(text[: characters + 1])
    return clean if len(clean) <= characters else clean[: characters - 1] + "…"


def told(notice: Notice) -> str:
    """Where and what, in one line."""
    where = " / ".join(
        one_line(name, NAME_CHARACTERS) for name in (notice.instrument_name, notice.session_name) if name
    )
    text = one_line(notice.event.message, TEXT_CHARACTERS)
    return f"{where}: {text}" if where else text


def in_words(kinds: Mapping[str, int]) -> str:
    """How many of each kind, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{one_line(kind, NAME_CHARACTERS)} {count}" for kind, count in ordered[:_KINDS_NAMED]]
    if rest := sum(count for _, count in ordered[_KINDS_NAMED:]):
        named.append(f"others {rest}")
    return ", ".join(named)


def _headline(notices: Sequence[Notice]) -> str:
    if len(notices) == 1:
        return f"{_kind(notices[0].event)}: {told(notices[0])}"
    counts = Counter(notice.event.severity for notice in notices)
    severities = ", ".join(f"{counts[severity]} {severity}" for severity in reversed(Severity) if counts[severity])
    return f"{len(notices)} events: {severities}"


def _shown(notices: Sequence[Notice]) -> list[Notice]:
    """As many as are told in full, in their order: the most severe, of these the newest."""
    places = sorted(range(len(notices)), key=lambda place: (rank(notices[place].event.severity), place))
    return [notices[place] for place in sorted(places[-MOST_LINES:])]


def _line(notice: Notice) -> str:
    event = notice.event
    at = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{at}  {event.severity:7}  {_kind(event)}  {told(notice)}"


def _kind(event: Event) -> str:
    return one_line(event.kind, NAME_CHARACTERS)


def _kinds(notices: Sequence[Notice]) -> Counter[str]:
    return Counter(notice.event.kind for notice in notices)
