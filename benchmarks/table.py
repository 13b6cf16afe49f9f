"""A table of what was measured beside what was to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bar:
    """What is to be reached: a value from `least` to `most`, either of which may be missing, and what one aims at."""

    least: float | None = None
    most: float | None = None
    aim: float | None = None

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            words = f"{self.least:.4g} to {self.most:.4g}"
        else:
            words = f"≤ {self.most:.4g}" if self.least is None else f"≥ {self.least:.4g}"
        return words if self.aim is None else f"{words}, aim {self.aim:.4g}"

    def is_met_by(self, value: float) -> bool:
        """Whether a value is within; NaN is not."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)


@dataclass(slots=True)
class Table:
    """Prints rows as they come, and remembers what was missed."""

    missed: list[str] = field(default_factory=list)

    def head(self, words: str) -> None:
        """A line above the rows that follow."""
        print(f"\n{words}", flush=True)

    def row(self, what: str, value: str, note: str = "") -> None:
        """A row without a bar."""
        print(f"  {what:58}{value:>12}   {note}".rstrip(), flush=True)

    def judge(self, what: str, value: float, bar: Bar, *, digits: int = 3, unit: str = "") -> None:
        """A row with a bar."""
        verdict = "met" if bar.is_met_by(value) else "missed"
        if verdict == "missed":
            self.missed.append(what)
        self.row(what, f"{value:.{digits}f}{unit}", f"{bar!s:24}{verdict}")
