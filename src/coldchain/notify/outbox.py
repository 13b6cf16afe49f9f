"""What waits for one receiver, and when the next message is due.

Nothing here sends, sleeps or looks at a clock: the time is passed in, as seconds of one monotonic clock. `offer` takes
events, `take` gives the next batch when it is due, and `sent` or `failed` says what became of it. What a restart must
know stands in `cursor`, `told` and `sends`.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from coldchain.model.events import Notice, Severity
from coldchain.notify.message import TEXT_CHARACTERS, Batch
from coldchain.notify.rules import Pace, Rule, rank

MOST_WAITING = 1000
HOUR_SECONDS = 3600.0
# However long a receiver asks to be left alone: it may have meant another unit.
LONGEST_PAUSE_SECONDS = 3600.0

_LEAST_FIRST = sorted(Severity, key=rank)
_MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    notice: Notice
    since_seconds: float

    @property
    def id(self) -> UUID:
        return self.notice.event.id


class Outbox:
    """The events that one receiver is still to be told; at most `MOST_WAITING` wait.

    Parameters
    ----------
    read : the id up to which events were told or are not to be told: when they are offered they are ignored.
    told : those after it that were told.
    sends : when messages were sent before, on the clock that is passed in, oldest first.
    """

    def __init__(
        self,
        rule: Rule,
        pace: Pace,
        read: UUID,
        *,
        told: Collection[UUID] = (),
        sends: Sequence[float] = (),
    ) -> None:
        self.rule = rule
        self.failures = 0
        self.told: list[UUID] = []
        self._pace = pace
        self._begin = read
        self._read = read
        self._told_before = frozenset(told)
        self._waiting: dict[Severity, deque[_Waiting]] = {severity: deque() for severity in _LEAST_FIRST}
        self._flight: tuple[_Waiting, ...] = ()
        self._told_lost: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._unsaid: Counter[str] = Counter()
        self._sends: deque[float] = deque(sends, maxlen=pace.most_per_hour or 0)
        self._not_before = float("-inf")

    def __len__(self) -> int:
        """How many events wait, without those that are being sent."""
        return sum(map(len, self._waiting.values()))

    @property
    def cursor(self) -> UUID:
        """Up to which id nothing is left to be told. It may lie between two events."""
        first = [queue[0].id for queue in self._waiting.values() if queue]
        first += [waiting.id for waiting in self._flight[:1]]
        return UUID(int=min(first).int - 1) if first else self._read

    @property
    def sending(self) -> bool:
        """Whether a batch was taken of which it is not known yet what became of it."""
        return bool(self._flight)

    def offer(self, notice: Notice, now_seconds: float, *, age_seconds: float = 0.0) -> None:
        """Take an event, if the rule wants it. Each is offered once; one may come after those with larger ids."""
        if notice.event.id <= self._begin:
            return
        self._read = max(self._read, notice.event.id)
        if notice.event.id in self._told_before or not self.rule.wants(notice):
            return
        message = notice.event.message[: TEXT_CHARACTERS + 1]  # none that waits holds megabytes
        waiting = _Waiting(
            replace(notice, event=replace(notice.event, message=message)), now_seconds - max(age_seconds, 0.0)
        )
        insort(self._waiting[notice.event.severity], waiting, key=lambda each: each.id)
        self._expire(now_seconds)
        self._trim()

    def due(self) -> float | None:
        """When the next batch may be taken; None while there is none, or while one is being sent."""
        if self._flight or not len(self):
            return None
        first = min(queue[0].since_seconds for queue in self._waiting.values() if queue)
        window = self._pace.digest_seconds if self._pace.bundles else 0.0
        due = max(first + window, self._not_before)
        if self._sends.maxlen and len(self._sends) == self._sends.maxlen:
            due = max(due, self._sends[0] + HOUR_SECONDS)
        return due

    def take(self, now_seconds: float) -> Batch | None:
        """The batch that is due now, or None. `sent` or `failed` must follow."""
        due = self.due()
        if due is None or due > now_seconds:
            return None
        queues = [queue for queue in self._waiting.values() if queue]
        ordered = heapq.merge(*queues, key=lambda waiting: waiting.id)
        count = self._how_many(now_seconds)
        self._flight = tuple(waiting for waiting, _ in zip(ordered, range(count), strict=False))
        for waiting in self._flight:
            self._waiting[waiting.notice.event.severity].popleft()
        self._told_lost = self._lost.copy()
        return Batch(tuple(waiting.notice for waiting in self._flight), dict(self._told_lost))

    def sent(self, now_seconds: float) -> None:
        """The batch has been handed over. Its events are added to `told`, which whoever records it empties."""
        self._sends.extend([now_seconds] * self._messages())
        self._lost -= self._told_lost
        self.told += [waiting.id for waiting in self._flight]
        self._flight = ()
        self.failures = 0

    def failed(self, now_seconds: float, *, retry: bool, pause_seconds: float = 0.0) -> None:
        """The batch has not been handed over. It waits again, or is dropped where a retry cannot help.

        `pause_seconds` is what the receiver asked for; an hour is kept at most.
        """
        flight, self._flight = self._flight, ()
        if not retry:
            self.failures = 0
            self.told += [waiting.id for waiting in flight]
            for waiting in flight:
                self._drop(waiting)
            return
        for waiting in flight:
            insort(self._waiting[waiting.notice.event.severity], waiting, key=lambda each: each.id)
        self.failures += 1
        asked = min(pause_seconds, LONGEST_PAUSE_SECONDS)
        self._not_before = now_seconds + max(self._pace.pause_seconds(self.failures), asked)
        self._expire(now_seconds)
        self._trim()

    def sends(self, now_seconds: float) -> list[tuple[float, int]]:
        """How long ago (seconds), and how many messages, the last first; what is being sent counts as sent.

        It is for the hour's limit after a restart: messages of one minute are put together, as if all were as late as
        the last. Nothing where there is no limit.
        """
        if not self._sends.maxlen:
            return []
        minutes: dict[int, tuple[float, int]] = {}
        for sent in [now_seconds] * self._messages() + list(reversed(self._sends)):
            age = max(now_seconds - sent, 0.0)
            if age < HOUR_SECONDS:
                last, count = minutes.get(int(age / _MINUTE_SECONDS), (age, 0))
                minutes[int(age / _MINUTE_SECONDS)] = (last, count + 1)
        return list(minutes.values())

    def dropped(self) -> Counter[str]:
        """How many of each kind were dropped since this was last asked: too many waited, too long, or refused."""
        unsaid, self._unsaid = self._unsaid, Counter()
        return unsaid

    def _how_many(self, now_seconds: float) -> int:
        waiting, free = len(self), self._free(now_seconds)
        if not self._pace.bundles:
            return min(waiting, free)
        return 1 if self._pace.digest_seconds == 0 and waiting <= free else waiting

    def _messages(self) -> int:
        """How many messages what is being sent makes."""
        return min(len(self._flight), 1) if self._pace.bundles else len(self._flight)

    def _free(self, now_seconds: float) -> int:
        """How many messages the hour still allows."""
        if not self._sends.maxlen:
            return MOST_WAITING
        return self._sends.maxlen - sum(sent > now_seconds - HOUR_SECONDS for sent in self._sends)

    def _expire(self, now_seconds: float) -> None:
        for queue in self._waiting.values():
            while queue and queue[0].since_seconds + self._pace.give_up_seconds <= now_seconds:
                self._drop(queue.popleft())

    def _trim(self) -> None:
        """Drop the oldest of the least severe until no more wait than may."""
        while len(self) > MOST_WAITING:
            self._drop(next(queue for queue in self._waiting.values() if queue).popleft())

    def _drop(self, waiting: _Waiting) -> None:
        self._lost[waiting.notice.event.kind] += 1
        self._unsaid[waiting.notice.event.kind] += 1
