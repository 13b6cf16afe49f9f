"""Noticing that a session has changed, against its own past. Pure: a session's exposures in, alerts out.

Each quantity (`watched`) is followed by a cumulative sum (Page, Biometrika 1954, 41, 100,
https://doi.org/10.1093/biomet/41.1-2.100) over the last 20 exposures (window-limited: Lai, J. R. Stat. Soc. B 1995, 57,
613, https://doi.org/10.1111/j.2517-6161.1995.tb02052.x), of deviations from the median of up to 100 exposures before
these, in robust standard deviations from the same (by the median absolute deviation, that of the watched side where it
is wider). A deviation counts at most three, so that a single exposure, or three, raise nothing. The sum grows by what
lies beyond *one* standard deviation, and 8 raise an alert: four exposures that differ by three or more do, eight to ten
that differ by two, and steps of 1.5 are often missed.

**False alarms.** Where exposures vary independently and normally: in none of 200 simulated runs of 1,000 exposures, for
each side that is watched; with heavy tails (t₃) in none; lognormal (σ = 0.5) in 4 %; of fits that fail by chance, 6 to
16 % of them, in 2 to 8 %, mostly early, when the first 30 have shown too few. A session has eight such sides, so a
steady one of 1,000 exposures has a false alarm in one case of ten or so, and hardly ever two.

**Its own past** is the same in whatever order exposures are computed, and after a restart: everything is found anew
from the exposures in the window and the alerts that the catalog has. An alert ends when the quantity is back at what
was usual before it, when it has stood elsewhere for 100 exposures, which is then usual, or when its exposures or those
before them were computed again and differ no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from coldchain.model.quality import Alert, Change, Ending, Judged
from coldchain.preprocess.watched import Watch, watches

WINDOW = 300
HORIZON = 20
_FEWEST_BEFORE = 30
_MOST_BEFORE = 100
_SLACK = 1.0
_ALARM = 8.0
_LARGEST_DEVIATION = 3.0
_MAD_TO_SIGMA = 1.4826
_BACK = 12
_BACK_DEVIATIONS = 1.0
_SETTLED = 100
# With as many an alert may be raised.
_FEWEST_CHANGED = 4
# Of a share of failures, however rare they were.
_LEAST_SHARE_DEVIATION = 0.25


@dataclass(frozen=True, slots=True)
class _Point:
    """A value of an exposure, and the exposure's place in the window."""

    place: int
    exposure_id: UUID
    value: float


def examine(judged: Sequence[Judged], alerts: Sequence[Alert]) -> tuple[list[Change], list[Ending]]:
    """What has changed in a session, and which alerts are over.

    Parameters
    ----------
    judged : the session's newest exposures in their order, `WINDOW` of them at most.
    alerts : the session's alerts, oldest first: those that are open, and the last ones that ended.
    """
    raised, ended = [], []
    places = {one.exposure_id: place for place, one in enumerate(judged)}
    for watch in watches(judged):
        series = [
            _Point(place, one.exposure_id, value)
            for place, one in enumerate(judged)
            if (value := watch.value(one.verdict.measures)) is not None
        ]
        mine = [alert for alert in alerts if alert.change.quantity is watch.quantity]
        standing = next((alert for alert in mine if alert.ended_at is None), None)
        if standing is not None:
            others = [alert for alert in mine if alert is not standing]
            ending = _ending(watch, _ordinary(series, places, others), places, standing)
            ended += [ending] if ending is not None else []
        elif (change := _change(watch, _ordinary(series, places, mine))) is not None:
            raised.append(change)
    return raised, ended


def _change(watch: Watch, series: Sequence[_Point]) -> Change | None:
    before, recent = _past_and_recent(series)
    if not recent:
        return None
    for side in watch.sides:
        usual, spread = _usual([point.value for point in before], side, watch)
        began = _alarm([side * (point.value - usual) / spread for point in recent])
        if began is not None:
            since = recent[began:]
            level = _middle([point.value for point in since], watch)
            words = watch.words(usual, level, len(since))
            return Change(watch.quantity, since[0].exposure_id, since[-1].exposure_id, usual, spread, level, words)
    return None


def _past_and_recent(series: Sequence[_Point]) -> tuple[Sequence[_Point], Sequence[_Point]]:
    split = max(_FEWEST_BEFORE, len(series) - HORIZON)
    return series[max(0, split - _MOST_BEFORE) : split], series[split:]


def _alarm(deviations: Sequence[float]) -> int | None:
    """Where the cumulative sum that ends beyond the limit began to grow; None where it does not."""
    total, began = 0.0, 0
    for index, deviation in enumerate(deviations):
        if total == 0:
            began = index
        total = max(0.0, total + min(deviation, _LARGEST_DEVIATION) - _SLACK)
    return began if total >= _ALARM else None


def _usual(values: Sequence[float], side: int, watch: Watch) -> tuple[float, float]:
    """Middle and standard deviation, which outliers do not move; of the side that is watched where it is wider."""
    middle = _middle(values, watch)
    if watch.is_share:
        return middle, max(math.sqrt(middle * (1 - middle)), _LEAST_SHARE_DEVIATION)
    away = [side * (value - middle) for value in values]
    beyond = [value for value in away if value > 0]
    spread = median(abs(value) for value in away)
    spread = max(spread, median(beyond) if beyond else 0.0)
    return middle, max(_MAD_TO_SIGMA * spread, watch.least)


def _middle(values: Sequence[float], watch: Watch) -> float:
    # Of failures and successes the median is one or the other; their share never quite 0 or 1.
    return (sum(values) + 1) / (len(values) + 2) if watch.is_share else median(values)


def _ending(watch: Watch, series: Sequence[_Point], places: Mapping[UUID, int], alert: Alert) -> Ending | None:
    """Whether an alert is over: by what came after it was raised, or by what is known now of its own exposures."""
    change = alert.change
    # Not in `places`: so long ago that it has left the window.
    since, seen = places.get(change.since, -1), places.get(change.seen, -1)
    before, _ = _past_and_recent([point for point in series if point.place < since])
    usual = _middle([point.value for point in before], watch) if len(before) >= _FEWEST_BEFORE else change.usual
    near = min(_BACK_DEVIATIONS * change.spread, 0.5 * abs(change.level - change.usual))

    def is_usual(points: Sequence[_Point]) -> bool:
        return abs(_middle([point.value for point in points], watch) - usual) <= near

    after = [point for point in series if point.place > seen]
    changed = [point for point in series if since <= point.place <= seen]
    if len(after) >= _BACK and is_usual(after[-_BACK:]):
        return Ending(alert.id, after[-1].exposure_id, f"{watch.name} is as before again.", settled=False)
    if since >= 0 and len(changed) >= _FEWEST_CHANGED and is_usual(changed):
        words = f"{watch.name} had not changed: exposures that were computed again, or late, say so."
        return Ending(alert.id, series[-1].exposure_id, words, settled=False)
    if len(after) >= _SETTLED:
        words = f"{watch.name} has stayed where it went for {_SETTLED} exposures: that is taken as usual now."
        return Ending(alert.id, after[-1].exposure_id, words, settled=True)
    return None


def _ordinary(series: Sequence[_Point], places: Mapping[UUID, int], alerts: Sequence[Alert]) -> list[_Point]:
    """The series without what earlier alerts were about; where one settled, without what was before it."""
    kept = list(series)
    for alert in alerts:
        since = places.get(alert.change.since, -1)
        end = places.get(alert.ended_by, -1) if alert.ended_by is not None else -1
        if alert.settled:
            kept = [point for point in kept if point.place >= since]
        else:
            # The last exposures before its end are those by which it was seen to be over.
            back = [point.place for point in kept if point.place <= end][-_BACK:]
            again = back[0] if back else end
            kept = [point for point in kept if point.place < since or point.place >= again]
    return kept
