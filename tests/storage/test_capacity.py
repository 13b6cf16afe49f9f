"""What a store's samples foretell: planted rates come back, and nothing that happens to samples misleads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from coldchain.model.stores import StoreSample
from coldchain.storage.capacity.forecast import FEWEST_DAYS, HORIZON_DAYS, Band, Forecast, forecast

NOW = datetime(2026, 6, 12, 12, 0, tzinfo=UTC)
TB = 10**12
TOTAL = 500 * TB


def sampled(
    growth: Sequence[float] | NDArray[np.float64], *, used: float = 0.0, total: int | None = TOTAL, per_day: int = 24
) -> list[StoreSample]:
    """Samples of a store on which so many bytes arrive each day, and that so many bytes are used of at first."""
    each = np.repeat(np.asarray(growth, dtype=float) / per_day, per_day)
    levels = used + np.concatenate([[0.0], np.cumsum(each)])
    began = NOW - timedelta(days=len(growth))
    return [
        StoreSample(
            store="raid",
            at=began + timedelta(days=number / per_day),
            total_bytes=total,
            free_bytes=None if total is None else int(total - level),
            arrived_bytes=int(max(0.0, each[number - 1])) if number else 0,
            backlog_bytes=0,
        )
        for number, level in enumerate(levels)
    ]


def visits(rng: np.random.Generator, days: int, mean: float = 2 * TB) -> NDArray[np.float64]:
    """Bytes a day of sessions of one to four days, each at its own rate, with idle times; weekends are empty."""
    growth = np.zeros(days + 7)
    at = 0
    while at < len(growth):
        length = int(rng.integers(1, 5))
        growth[at : at + length] = rng.gamma(4, mean / 4) if rng.random() < 0.8 else 0.0
        at += length
    growth[np.arange(len(growth)) % 7 >= 5] = 0.0
    first = int(rng.integers(0, 7))
    return growth[first : first + days]


RATE = 0.8 * 5 / 7 * 2 * TB
"""What `visits` bring a day, in the long run."""


def inside(value: float, band: Band | None) -> bool:
    """Whether a value lies in the band; None is never."""
    assert band is not None
    low, high = (HORIZON_DAYS if end is None else end for end in (band.low, band.high))
    return low <= value <= high


def exactly(band: Band | None, value: float) -> None:
    """The band is one value."""
    assert band is not None
    assert (band.low, band.middle, band.high) == pytest.approx((value, value, value), rel=1e-6)


@pytest.mark.parametrize(("days", "facilities"), [(28, 150), (56, 100)])
def test_planted_rates_and_days_lie_in_eight_of_ten_bands(days: int, facilities: int) -> None:
    """Of many facilities the true rate, and the day on which the store really is full, lie in the 80 % band."""
    rate_hits = arriving_hits = full_hits = 0
    for seed in range(facilities):
        growth = visits(np.random.default_rng(seed), days + 365)
        past, future = growth[:days], np.cumsum(growth[days:])
        room = 40 * RATE
        foretold = forecast(sampled(past, total=int(past.sum() + room), per_day=2), NOW)
        arriving_hits += inside(RATE, foretold.arriving)
        rate_hits += inside(RATE, foretold.growing)
        day = int(np.argmax(future >= room))
        full_hits += inside(day + 1 - (future[day] - room) / growth[days + day], foretold.days_until_full)
    for hits in (rate_hits, arriving_hits, full_hits):
        assert 0.7 <= hits / facilities <= 0.9, (rate_hits, arriving_hits, full_hits)


def test_a_steady_rate_is_told_exactly() -> None:
    """1 TB a day with 50 TB left: a rate without a band, and full in 50 days; the same each time it is asked."""
    samples = sampled(np.full(28, TB), used=TOTAL - 78 * TB)
    foretold = forecast(samples, NOW)
    assert foretold == forecast(list(reversed(samples)), NOW)
    exactly(foretold.arriving, TB)
    exactly(foretold.growing, TB)
    exactly(foretold.days_until_full, 50.0)
    assert (foretold.days_seen, foretold.at, foretold.why_not) == (28, NOW, "")
    course = foretold.course
    assert course is not None
    assert course.days[0] == 0 and course.middle[0] == pytest.approx(TOTAL - 50 * TB) and course.middle[-1] == TOTAL
    assert all(low <= middle <= high for low, middle, high in zip(course.low, course.middle, course.high, strict=True))


@pytest.mark.parametrize("days", [0, 1, FEWEST_DAYS - 1])
def test_of_few_samples_nothing_is_foretold(days: int) -> None:
    """It is said that there are too few, and of how many days."""
    foretold = forecast(sampled(np.full(days, TB)), NOW)
    assert not foretold.is_told and foretold.arriving is None
    assert f"of {days} whole days" in foretold.why_not
    assert forecast([], NOW) == Forecast(0, why_not=forecast([], NOW).why_not)


@pytest.mark.parametrize("total", [None, 0])
def test_a_store_without_an_end_has_a_rate_and_never_fills(total: int | None) -> None:
    """An object store does not say how large it is, or says nothing: what arrives is told, and why no more is."""
    foretold = forecast(sampled(np.full(28, TB), total=total), NOW)
    exactly(foretold.arriving, TB)
    assert not foretold.is_told
    assert "does not tell how large" in foretold.why_not


def test_what_is_not_copied_yet_counts() -> None:
    """For four days the link was cut: the backlog grows, the store does not; what is foretold is as if it did."""
    samples = sampled(np.full(28, TB), used=TOTAL - 78 * TB)
    stuck = samples[24 * 24].free_bytes
    assert stuck is not None
    cut = [
        one
        if one.at <= samples[24 * 24].at
        else replace(one, free_bytes=stuck, backlog_bytes=stuck - (one.free_bytes or 0))
        for one in samples
    ]
    exactly(forecast(cut, NOW).days_until_full, 50.0)
    exactly(forecast(cut, NOW).growing, TB)
    full = [replace(one, backlog_bytes=10 * TOTAL) for one in samples[-1:]]
    exactly(forecast([*samples[:-1], *full], NOW).days_until_full, 0.0)


def test_gaps_do_not_matter() -> None:
    """The service stood still for two days, then for five, and each tenth sample was lost: a steady rate stays."""
    samples = sampled(np.full(42, TB), used=100 * TB)
    thinned = [
        one for number, one in enumerate(samples) if not 200 < number < 248 and not 600 < number < 720 and number % 10
    ]
    known = {one.at for one in thinned}
    gone = 0
    told = []
    for one in samples:  # what arrived while nobody looked is in the next sample
        gone += one.arrived_bytes
        if one.at in known:
            told.append(replace(one, arrived_bytes=gone))
            gone = 0
    foretold = forecast(told, NOW)
    whole = forecast(samples, NOW)
    assert whole.growing is not None and foretold.growing is not None and foretold.arriving is not None
    exactly(foretold.growing, TB)
    exactly(foretold.arriving, TB)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_another_size_is_no_growth(factor: float) -> None:
    """A store that was enlarged, or made smaller, has neither lost nor won what that is; the room is that of now."""
    samples = sampled(np.full(28, TB), used=100 * TB)
    larger = [
        one
        if one.at < NOW - timedelta(days=9)
        else replace(one, total_bytes=int(TOTAL * factor), free_bytes=int((one.free_bytes or 0) + TOTAL * (factor - 1)))
        for one in samples
    ]
    foretold = forecast(larger, NOW)
    exactly(foretold.growing, TB)
    exactly(foretold.days_until_full, (TOTAL * factor - 128 * TB) / TB)


def test_a_clock_set_back_an_hour_does_not_matter() -> None:
    """Samples of the hour before are written again, between those of the first time."""
    samples = sampled(np.full(28, TB), used=100 * TB)
    back = [
        replace(one, at=one.at - timedelta(hours=1)) if one.at > NOW - timedelta(days=5) else one for one in samples
    ]
    foretold = forecast(back, NOW - timedelta(hours=1))
    assert foretold.growing is not None and foretold.growing.middle == pytest.approx(TB, rel=0.01)
    assert foretold.days_until_full is not None
    assert foretold.days_until_full.middle == pytest.approx(372, rel=0.01)


def test_samples_of_a_year_ahead_do_not_count() -> None:
    """The clock was a year ahead for an hour: what was written then is passed over."""
    samples = sampled(np.full(28, TB), used=100 * TB)
    ahead = [
        replace(one, at=one.at + timedelta(days=365)) if 300 <= number < 306 else one
        for number, one in enumerate(samples)
    ]
    foretold = forecast(ahead, NOW)
    assert foretold.at == NOW
    exactly(foretold.growing, TB)


def test_clearing_as_a_rule_keeps_it_from_being_full() -> None:
    """Every fourth day a watermark clears what three days and a half brought: nobody is told that it is soon full."""
    growth = np.tile([2.0, 2.0, 2.0, -6.0], 14) * TB
    total = int(40 * TB)
    foretold = forecast(sampled(growth, used=30 * TB, total=total), NOW)
    assert foretold.days_until_full is not None
    assert foretold.days_until_full.middle is None or foretold.days_until_full.middle > 60


def test_one_clearing_does_not_hide_that_it_fills() -> None:
    """Once in eight weeks somebody took away more than had come: the store is soon full all the same."""
    growth = np.full(56, TB, dtype=float)
    growth[30] = -60 * TB
    foretold = forecast(sampled(growth, used=200 * TB, total=int(206 * TB)), NOW)
    full = foretold.days_until_full
    assert foretold.growing is not None and foretold.growing.middle is not None and foretold.growing.middle < 0
    assert full is not None and full.middle is not None and full.middle < 14


def test_a_store_that_does_not_grow_is_never_full() -> None:
    """None is what is not within the horizon."""
    foretold = forecast(sampled(np.zeros(28), used=100 * TB), NOW)
    assert foretold.days_until_full == Band(None, None, None)
    assert foretold.is_told
