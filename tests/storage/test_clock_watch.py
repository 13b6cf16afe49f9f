"""Nothing is due because somebody has set the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coldchain.storage.retention.clock_watch import ClockWatch

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = BEGAN, 1000.0

    def watch(self, newest: datetime | None) -> ClockWatch:
        """Somebody who looks at both."""
        return ClockWatch(newest, now=lambda: self.wall, steady=lambda: self.steady)

    def later(self, **time: float) -> None:
        """Let time pass."""
        passed = timedelta(**time)
        self.wall, self.steady = self.wall + passed, self.steady + passed.total_seconds()


def test_time_that_passes_is_believed() -> None:
    """However long it takes."""
    clocks = Clocks()
    watch = clocks.watch(BEGAN - timedelta(days=3))
    for _ in range(3):
        clocks.later(days=400)
        assert watch.why_not() == ""


@pytest.mark.parametrize("by", [timedelta(days=365), timedelta(hours=-2), timedelta(hours=2)])
def test_a_clock_that_is_set_is_not_believed_for_a_day(by: timedelta) -> None:
    """Then it is the time; a clock that is set right again is believed at once."""
    clocks = Clocks()
    watch = clocks.watch(None)
    clocks.wall += by
    clocks.later(hours=23)
    assert "was set by" in watch.why_not()
    clocks.later(hours=23)
    assert watch.why_not()
    clocks.later(hours=2)
    assert watch.why_not() == ""
    clocks.wall += by
    assert watch.why_not()
    clocks.wall -= by
    assert watch.why_not() == ""


def test_small_steps_are_no_matter() -> None:
    """A clock that is put right by a minute is believed."""
    clocks = Clocks()
    watch = clocks.watch(None)
    clocks.wall += timedelta(minutes=-1)
    assert watch.why_not() == ""


@pytest.mark.parametrize("newest", [BEGAN - timedelta(days=31), BEGAN + timedelta(days=2)])
def test_a_start_long_after_or_before_everything_known_waits_for_a_day(newest: datetime) -> None:
    """A machine that starts with another year gives people a day to see it."""
    clocks = Clocks()
    watch = clocks.watch(newest)
    assert "newest event" in watch.why_not()
    clocks.later(hours=25)
    assert watch.why_not() == ""
