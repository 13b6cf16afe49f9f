"""Values in the words of the pages: numbers with their units, times, names."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from markupsafe import Markup

from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.files import FileState, ReplicaState
from coldchain.model.quality import Grade
from coldchain.model.results import StepState
from coldchain.model.session import ExposureState, SessionState
from coldchain.units import byte_size

NOTHING = "–"

# The colour in which a state is shown; base.html's style sheet knows these names.
TONES: dict[str, str] = {
    SessionState.OPEN: "good",
    SessionState.CLOSED: "calm",
    SessionState.RELEASED: "calm",
    ExposureState.WAITING: "warn",
    ExposureState.READY: "busy",
    ExposureState.PROCESSING: "busy",
    ExposureState.DONE: "good",
    ExposureState.QUARANTINED: "bad",
    StepState.RUNNING: "busy",
    StepState.FAILED: "bad",
    StepState.INTERRUPTED: "warn",
    FileState.ARRIVED: "good",
    FileState.DAMAGED: "bad",
    FileState.UNREADABLE: "bad",
    FileState.REPLACED: "calm",
    ReplicaState.WANTED: "busy",
    ReplicaState.VERIFIED: "good",
    ReplicaState.DAMAGED: "bad",
    ReplicaState.RETIRING: "busy",
    ReplicaState.TRASHED: "calm",
    ReplicaState.REMOVING: "busy",
    ReplicaState.REMOVED: "calm",
    Grade.GOOD: "good",
    Grade.DOUBTFUL: "warn",
    Grade.BAD: "bad",
    Severity.INFO: "calm",
    Severity.WARNING: "warn",
    Severity.ERROR: "bad",
}


def safe_text(value: object) -> object:
    """What a template's expression becomes: text is made printable before it is escaped; markup is left alone.

    It is set as Jinja's `finalize`, so that no template can forget it.
    """
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def tone(state: str) -> str:
    """The colour's name for a state of anything."""
    return TONES.get(state, "calm")


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number with so many digits after the point and its unit; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{digits}f}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def shortest(value: float | None, unit: str = "") -> str:
    """A number with the digits that it needs, at most six."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.6g}".replace("-", "−")
    return f"{text} {unit}" if unit else text


def micrometer(value_angstrom: float | None) -> str:
    """A length of some thousand Å in µm."""
    return number(None if value_angstrom is None else value_angstrom * 1e-4, 2, "µm")


def moment(value: datetime | None) -> str:
    """A time to the second, in the facility's local time."""
    return NOTHING if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(value: datetime | None) -> str:
    """The time of day alone."""
    return NOTHING if value is None else value.astimezone().strftime("%H:%M:%S")


def time_zone() -> str:
    """The facility's time zone, as the foot of each page names it."""
    now = datetime.now(UTC).astimezone()
    offset = now.strftime("%z")
    name = now.tzname() or ""
    return "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:]}{f' ({name})' if name.isalpha() else ''}"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def short_name(name: str) -> str:
    """The last part of a name that is a path."""
    return name.rstrip("/").rpartition("/")[2] or name


def name_halves(name: str, tail_length: int = 11) -> tuple[str, str]:
    """The last part of a name in two: a head that a narrow page may cut, and the tail in which names differ."""
    text = printable(short_name(name))
    cut = max(len(text) - tail_length, 0)
    return text[:cut], text[cut:]


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 file", "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(part: int, whole: int) -> int:
    """How much of the whole the part is, 0 to 100; 100 only when it is all."""
    return 0 if whole <= 0 else 100 if part >= whole else min(99, round(100 * part / whole))


def share(value: float | None, digits: int = 0) -> str:
    """A part of a whole."""
    return number(None if value is None else 100 * value, digits, "%")


FILTERS = {
    "tone": tone,
    "number": number,
    "shortest": shortest,
    "micrometer": micrometer,
    "byte_size": byte_size,
    "moment": moment,
    "clock": clock,
    "seconds": seconds,
    "short_name": short_name,
    "name_halves": name_halves,
    "plural": plural,
}
