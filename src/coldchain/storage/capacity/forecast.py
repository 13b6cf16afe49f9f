"""How fast a store fills and when it is full, foretold from its samples. Pure.

What is foretold is the *room*: free bytes less the backlog, so that what is wanted on the store counts from the moment
it is wanted, and a link that was cut for a day makes neither a pause nor a leap. The room's daily losses, clearing
included, are resampled in blocks of days that follow each other [1]_, in a circle, so that no day counts less [2]_:
blocks of a week, or of two where there are eight, which keep what a facility's days have in common, sessions that last
for days and empty weekends. Each of 500 resampled histories gives a mean loss a day, and continued by blocks drawn anew
a future. The 10, 50 and 90 % quantiles of the means are the band of the rate; those of the days on which the futures
run out of room are the band of "full".

That is why a step by clearing needs no rule of its own: where weeks bring clearing as a rule, futures have it too, and
the store does not fill; where it was once, enough futures go without it.

Few blocks scatter about their own mean by sqrt((k - 1) / k) less than about the true one, and their spread itself is
known badly, so that quantiles are Student's rather than the normal's; both are made up for. Of a thousand facilities
with planted sessions and weekends, the true rate lay in the band of 78 % after 4 weeks, of 82 % after 8, and of 84 to
90 % after less than two, whose bands are two to three times as wide.

References
----------
.. [1] Künsch (1989), The jackknife and the bootstrap for general stationary observations, doi:10.1214/aos/1176347265
.. [2] Politis & Romano (1992), A circular block-resampling procedure for stationary data, in: Exploring the Limits of
   Bootstrap, Wiley, 263-270
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.model.stores import StoreSample

HISTORY_DAYS = 56
"""How far back samples count: eight weeks are enough blocks, and a facility's habits change within more."""
HORIZON_DAYS = 730
"""What lies further ahead than that is not foretold."""
FEWEST_DAYS = 6
"""With samples of fewer days nothing is foretold."""

_WEEK = 7
# From so many days on, blocks of so many.
_BLOCKS = ((8 * _WEEK, 2 * _WEEK), (2 * _WEEK, _WEEK), (0, 3))
_FUTURES = 500
_SEED = 8
_QUANTILES = (0.1, 0.5, 0.9)
_DAY_SECONDS = 86_400.0
_MOST_SHOWN = 120
# Beyond that the store has another size: it was exchanged, or enlarged. ZFS, which shares a pool, changes it by less.
_SAME_SIZE = 0.01
# Of each day at least so much must be known.
_ENOUGH_OF_DAY = 0.5

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """A value foretold: with 80 % between `low` and `high`, as likely above as below `middle`.

    None: beyond what is foretold (`HORIZON_DAYS`), of days until a store is full.
    """

    low: float | None
    middle: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """How many bytes will be in use: after `days[n]` days between `low[n]` and `high[n]`, none above the whole."""

    days: tuple[float, ...]
    low: tuple[int, ...]
    middle: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is foretold of a store.

    `arriving` is what comes to be wanted on it, in bytes a day, `growing` by how much the bytes in use grow a day (what
    others write and what is cleared included), both as means of the days looked at. `days_until_full` counts from the
    newest sample, which is of `at`. What cannot be told is None, and `why_not` says why.
    """

    days_seen: int
    at: datetime | None = None
    arriving: Band | None = None
    growing: Band | None = None
    days_until_full: Band | None = None
    course: Course | None = None
    why_not: str = ""

    @property
    def is_told(self) -> bool:
        """Whether it is foretold when the store is full, be it "not in the next two years"."""
        return self.days_until_full is not None


def forecast(samples: Sequence[StoreSample], now: datetime) -> Forecast:
    """What a store's samples of the last `HISTORY_DAYS` foretell; the same for the same samples.

    Their order and gaps do not matter, and they may lie an hour back, since a clock was set. What lies after `now` was
    written under a clock that was ahead, and does not count.
    """
    known = sorted((one for one in samples if one.at <= now), key=lambda one: one.at)
    days = _days(known)
    if len(days) < FEWEST_DAYS:
        return Forecast(len(days), at=known[-1].at if known else None, why_not=_too_few("samples", len(days)))
    newest = known[-1]
    days = _whole_blocks(days)
    arriving = _band(np.maximum(_means(days[:, 1]), 0.0))
    told = Forecast(len(days), at=newest.at, arriving=arriving)
    if not newest.total_bytes or newest.free_bytes is None:
        return replace(told, why_not="the store does not tell how large it is")
    lost = days[~np.isnan(days[:, 0]), 0]
    if len(lost) < FEWEST_DAYS:
        return replace(told, why_not=_too_few("sizes", len(lost)))
    lost = _whole_blocks(lost)
    growing = _means(lost)
    futures = _futures(lost, growing)
    room = newest.free_bytes - newest.backlog_bytes
    full = _days_until(room, futures)
    return replace(
        told,
        growing=_band(growing),
        days_until_full=Band(*(None if np.isinf(day) else float(day) for day in full)),
        course=_course(newest.total_bytes, room, futures, full),
    )


def _too_few(what: str, days: int) -> str:
    return f"there are {what} of {days} whole days, and {FEWEST_DAYS} are the fewest that tell anything"


def _days(samples: Sequence[StoreSample]) -> Floats:
    """What each whole day brought, oldest first, as rows (room lost in bytes, bytes arrived), days counted back from
    the newest sample. A day of which too little is known is left out; room that is not known is NaN.

    Of a gap (the service was not running) the change is taken to be even over it.
    """
    if len(samples) < 2:
        return np.empty((0, 2))
    at = np.array([one.at.timestamp() for one in samples])
    ago = (at[-1] - at) / _DAY_SECONDS
    count = int(ago[0] + 1e-6)
    # A sample's arrivals are those since the sample before: they belong to the interval that ends with it.
    arrived = np.array([one.arrived_bytes for one in samples[1:]], dtype=float)
    lost, is_known = _room_lost(samples)
    edges = np.arange(count, -1, -1, dtype=float)
    sums = [_over_days(ago, values, edges) for values in (arrived, lost, is_known * -np.diff(ago))]
    arrived_of_day, lost_of_day, known_of_day = sums
    rows = np.stack([lost_of_day, arrived_of_day], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows[:, 0] = np.where(known_of_day >= _ENOUGH_OF_DAY, rows[:, 0] / known_of_day, np.nan)
    return rows


def _over_days(ago: Floats, values: Floats, edges: Floats) -> Floats:
    """The sums of values of intervals (between samples so many days ago, oldest first) over days between edges."""
    whole = np.concatenate([[0.0], np.cumsum(values)])
    # An interval without length (a clock that was set) is a step.
    return np.diff(np.interp(-edges, -ago, whole))


def _room_lost(samples: Sequence[StoreSample]) -> tuple[Floats, NDArray[np.bool_]]:
    """Of each interval between samples: the room that was lost, and whether that is known."""
    total = np.array([np.nan if one.total_bytes is None else one.total_bytes for one in samples], dtype=float)
    room = np.array(
        [np.nan if one.free_bytes is None else one.free_bytes - one.backlog_bytes for one in samples], dtype=float
    )
    with np.errstate(invalid="ignore"):
        is_known = np.abs(np.diff(total)) <= _SAME_SIZE * total[1:]
    return np.where(is_known, -np.diff(np.nan_to_num(room)), 0.0), is_known


def _block(days: Floats) -> int:
    """Weeks, where there are two at least; else days, which tells too little of how they hang together."""
    return next(block for fewest, block in _BLOCKS if len(days) >= fewest)


def _whole_blocks(days: Floats) -> Floats:
    """The latest of them that are whole blocks."""
    return days[len(days) % _block(days) :]


def _blocks(days: Floats) -> Floats:
    """All blocks of the days in a circle, as rows. `days` are whole blocks."""
    within = np.arange(len(days))[:, None] + np.arange(_block(days))
    blocks: Floats = days[within % len(days)]
    return blocks


def _means(days: Floats) -> Floats:
    """Means a day of resampled histories (futures,)."""
    blocks, count = _blocks(days), len(days) // _block(days)
    drawn = np.random.default_rng(_SEED).integers(0, len(blocks), (_FUTURES, count))
    scatter = blocks.mean(axis=1)[drawn].mean(axis=1) - days.mean()
    means: Floats = days.mean() + scatter * _unseen(count) * _students(count)
    return means


def _futures(days: Floats, means: Floats) -> Floats:
    """What each future brings a day (futures, `HORIZON_DAYS`), about its mean."""
    blocks = (_blocks(days) - days.mean()) * _unseen(len(days) // _block(days))
    drawn = np.random.default_rng(_SEED + 1).integers(0, len(blocks), (_FUTURES, -(-HORIZON_DAYS // _block(days))))
    futures: Floats = means[:, None] + blocks[drawn].reshape(_FUTURES, -1)[:, :HORIZON_DAYS]
    return futures


def _unseen(count: int) -> float:
    """How much more than so many blocks do about their own mean, days scatter about the true one."""
    return float(np.sqrt(count / (count - 1)))


def _students(count: int) -> float:
    """How much wider than the normal distribution the means of so many blocks scatter, their own spread unknown."""
    from scipy.special import ndtri, stdtrit  # a fifth of a second, which a service without a history need not wait for

    return float(stdtrit(count - 1, _QUANTILES[-1]) / ndtri(_QUANTILES[-1]))


def _band(values: Floats) -> Band:
    return Band(*(float(value) for value in np.quantile(values, _QUANTILES)))


def _days_until(room: int, futures: Floats) -> Floats:
    """Quantiles of the days after which futures have used up so much room, inf where that is not within the horizon."""
    if room <= 0:
        return np.zeros(len(_QUANTILES))
    used = np.cumsum(futures, axis=1)
    is_full = used >= room
    day = np.argmax(is_full, axis=1)
    each = np.arange(len(used))
    # Within the day on which it is full it fills evenly.
    missing = room - used[each, day] + futures[each, day]
    when = np.where(is_full.any(axis=1), day + missing / np.where(is_full[each, day], futures[each, day], 1.0), np.inf)
    # Between a day and never there is nothing: each quantile is one of the futures.
    return np.quantile(when, _QUANTILES, method="inverted_cdf")


def _course(total_bytes: int, room: int, futures: Floats, full: Floats) -> Course:
    """The bytes in use over the days to come, until it is as good as sure that the store is full: a month at least,
    half a year where that is not foretold."""
    ends = full[np.isfinite(full)]
    count = int(min(HORIZON_DAYS, max(4 * _WEEK, 1.2 * ends[-1] if len(ends) else 26 * _WEEK)))
    shown = np.arange(-(-count // _MOST_SHOWN) - 1, count, -(-count // _MOST_SHOWN))
    used = total_bytes - room + np.cumsum(futures[:, :count], axis=1)[:, shown]
    lines = np.clip(np.quantile(used, _QUANTILES, axis=0), 0, total_bytes)
    start = min(max(total_bytes - room, 0), total_bytes)
    low, middle, high = ((start, *(int(value) for value in line)) for line in lines)
    return Course((0.0, *(float(day + 1) for day in shown)), low, middle, high)
