"""Reads what happened from the journal and has each receiver told, each in a thread of its own.

Whoever writes an event never waits for a receiver: the journal lies between. What a rule has told is recorded in the
journal after every message, so that a restart goes on there. A process that is killed between a message and its record
tells that message twice; nothing is lost. Where the messages of an hour are limited, each is recorded before it is sent
as well, so that no restart exceeds the limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from coldchain.errors import CatalogError, DeliveryError
from coldchain.model.events import Notice
from coldchain.notify.channel import BusyError, Channel
from coldchain.notify.follower import PAGE, Follower, Journal, Ledger, first_id_of, late_from, seconds_of
from coldchain.notify.message import Batch, in_words
from coldchain.notify.outbox import Outbox
from coldchain.notify.rules import Pace, Rule

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
SAVE_SECONDS = 60.0
# Longer than any channel's patience: what is being sent at the end is waited for.
STOP_SECONDS = 40.0

# What appears late is looked for every so many readings, and in this part of the time at most.
_READINGS_PER_LOOK_BACK = 5
_LOOK_BACK_PART = 0.05


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told what, how often, by which way."""

    rule: Rule
    pace: Pace
    channel: Channel


class Notifier:
    """A part of the facility: `start`, then `stop`, which finishes the messages that are being sent."""

    def __init__(
        self,
        journal: Journal,
        receivers: Sequence[Receiver],
        *,
        ledger: Ledger | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._receivers = receivers
        self._read_seconds = read_seconds
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name="notify-read", daemon=True)
        self._tellers: list[_Teller] = []
        self._follower = Follower(journal, ledger, UUID(int=0))

    def start(self) -> None:
        """Begin: each rule where it ended, a new one after the newest event. Raises CatalogError."""
        newest = self._journal.newest()
        starts = [self._start_of(receiver, newest) for receiver in self._receivers]
        self._follower = Follower(self._journal, self._ledger, min(starts, default=newest))
        self._tellers = [
            _Teller(self._journal, self._ledger, receiver, start)
            for receiver, start in zip(self._receivers, starts, strict=True)
        ]
        for teller in self._tellers:
            teller.start()
        self._reader.start()

    def stop(self) -> None:
        """Finish what is being sent. What waits is told after the next start."""
        self._stopping.set()
        if self._reader.is_alive():
            self._reader.join()
        for teller in self._tellers:
            teller.ask_to_stop()
        for teller in self._tellers:
            teller.stop()

    def idle(self) -> bool:
        """Whether no message is due or being sent. Events that wait for their digest's end do not count."""
        return all(teller.idle() for teller in self._tellers)

    def alive(self) -> bool:
        """Whether every thread runs. One that ended by itself has left its traceback in the log."""
        return self._reader.is_alive() and all(teller.alive() for teller in self._tellers)

    def _start_of(self, receiver: Receiver, newest: UUID) -> UUID:
        cursor, now = self._journal.cursor(receiver.rule.name), time.time()
        if self._ledger is not None and seconds_of(newest) > now + 1:  # a clock that was ahead, or another machine's is
            newest = first_id_of(now)
        if cursor is None:
            self._journal.set_cursor(receiver.rule.name, newest)
            return newest
        if self._ledger is not None and seconds_of(cursor) > now + 1:
            cursor = late_from(cursor, now)
        # Older events would be dropped one by one.
        return max(cursor, first_id_of(now - receiver.pace.give_up_seconds))

    def _read(self) -> None:
        saved = looked_back = time.monotonic()
        while not self._stopping.is_set():
            more = False
            try:
                more = self._read_on()
                if not more and time.monotonic() >= looked_back:
                    looked_back = self._look_back()
            except CatalogError as error:
                log.warning("notify: %s", error)
            if time.monotonic() >= saved + SAVE_SECONDS:
                saved = time.monotonic()
                for teller in self._tellers:
                    teller.save()
            if not more:
                self._stopping.wait(self._read_seconds)

    def _read_on(self) -> bool:
        """Offer what is new; whether there is more at once."""
        page = self._follower.read_on()
        self._offer(page)
        return len(page) == PAGE

    def _look_back(self) -> float:
        """Offer what has appeared late; when to look again. What a restart found is all offered when this was done
        once, and only then is told: together, where it belongs together."""
        began = time.monotonic()
        while len(page := self._follower.look_back(time.time())) == PAGE and not self._stopping.is_set():
            self._offer(page)
        self._offer(page)
        for teller in self._tellers:
            teller.begin()
        ended = time.monotonic()
        return ended + max(_READINGS_PER_LOOK_BACK * self._read_seconds, (ended - began) / _LOOK_BACK_PART)

    def _offer(self, page: Sequence[Notice]) -> None:
        if page:
            for teller in self._tellers:
                teller.offer(page)


class _Teller:
    """Tells one receiver, in a thread of its own."""

    def __init__(self, journal: Journal, ledger: Ledger | None, receiver: Receiver, start: UUID) -> None:
        self._journal = journal
        self._ledger = ledger
        self._channel = receiver.channel
        self._name = receiver.rule.name
        self._limited = receiver.pace.most_per_hour is not None
        told = [] if ledger is None else ledger.told(self._name)
        sends = [] if ledger is None else _on_our_clock(ledger.sends(self._name))
        self._outbox = Outbox(receiver.rule, receiver.pace, start, told=told, sends=sends)
        self._changed = threading.Condition()  # guards the outbox
        self._saving = threading.Lock()  # no older cursor is written over a newer one
        self._saved = start
        self._reserved = False  # whether what is recorded counts a message that is being sent
        self._stopping = False
        self._ready = False
        self._refused: set[str] = set()
        # A daemon: a name server that hangs cannot be hung up on.
        self._thread = threading.Thread(target=self._tell, name=f"notify-{self._name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin(self) -> None:
        """Tell what is offered; before, it only waits."""
        if not self._ready:
            with self._changed:
                self._ready = True
                self._changed.notify()

    def offer(self, page: Sequence[Notice]) -> None:
        """Take new events. It never waits for the receiver."""
        now, wall = time.monotonic(), datetime.now(UTC)
        with self._changed:
            for notice in page:
                self._outbox.offer(notice, now, age_seconds=(wall - notice.event.at).total_seconds())
            self._changed.notify()
        self._say_dropped()

    def ask_to_stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            log.warning("notify %s: %s has not let go; its last message may be told twice", self._name, self._channel)
        else:
            self.save()

    def idle(self) -> bool:
        with self._changed:
            due = self._outbox.due()
            return not self._outbox.sending and (due is None or due > time.monotonic())

    def alive(self) -> bool:
        return self._thread.is_alive()

    def save(self) -> None:
        """Record how far the rule has come, where that is news."""
        with self._saving:
            with self._changed:
                cursor, told, sends = self._outbox.cursor, list(self._outbox.told), self._sends()
                # What may still appear behind the cursor must not lie before it.
                if self._ledger is not None:
                    cursor = min(cursor, max(self._saved, late_from(cursor, time.time())))
                sending = self._limited and self._outbox.sending
            if cursor == self._saved and not told and sending == self._reserved:
                return
            try:
                if self._ledger is None:
                    self._journal.set_cursor(self._name, cursor)
                else:
                    self._ledger.record(self._name, cursor, told=told, sends=sends)
            except CatalogError as error:
                log.warning("notify %s: how far it has come cannot be recorded yet: %s", self._name, error)
                return
            self._saved, self._reserved = cursor, sending
            with self._changed:
                del self._outbox.told[: len(told)]

    def _sends(self) -> list[tuple[float, int]] | None:
        if not self._limited:
            return None
        now = time.time()
        return [(now - age, count) for age, count in self._outbox.sends(time.monotonic())]

    def _tell(self) -> None:
        while (batch := self._next()) is not None:
            if self._limited:
                self.save()  # or a process that is killed now would forget this message
            try:
                complaints = self._channel.send(batch)
            except DeliveryError as error:
                self._has_failed(batch, error)
                saves = self._limited or not error.retry
            else:
                self._is_told(batch, complaints)
                saves = True
            if saves:
                self.save()

    def _next(self) -> Batch | None:
        """Wait for the next batch; None when it is time to stop."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if self._ready and (batch := self._outbox.take(now)) is not None:
                    return batch
                due = self._outbox.due() if self._ready else None
                self._changed.wait(None if due is None else max(due - now, 0.0))
        return None

    def _is_told(self, batch: Batch, complaints: Sequence[str]) -> None:
        with self._changed:
            failures = self._outbox.failures
            self._outbox.sent(time.monotonic())
        for complaint in complaints:
            log.error("notify %s: %s: refused: %s", self._name, self._channel, complaint)
        self._state_refused(complaints)
        if failures:
            log.info("notify %s: %s takes messages again", self._name, self._channel)
        log.debug("notify %s: told %d event(s)", self._name, len(batch.notices))

    def _state_refused(self, complaints: Sequence[str]) -> None:
        """Write an event of each address that is refused now and was not before: of its own mail's refusal, that of
        the event itself too, nothing is written again."""
        addresses = {complaint.partition(": ")[0]: complaint for complaint in complaints}
        stated = self._refused & addresses.keys()
        for address, complaint in addresses.items():
            if self._ledger is None or address in stated:
                continue
            try:
                self._ledger.say("notice.refused", f"{self._name}: {self._channel}: not told: {complaint}")
            except CatalogError as error:
                log.warning("notify %s: that %s is refused cannot be recorded yet: %s", self._name, address, error)
            else:
                stated.add(address)
        self._refused = stated

    def _has_failed(self, batch: Batch, error: DeliveryError) -> None:
        pause = error.pause_seconds if isinstance(error, BusyError) else 0.0
        with self._changed:
            now = time.monotonic()
            self._outbox.failed(now, retry=error.retry, pause_seconds=pause)
            due = self._outbox.due()
        again = f"; next try in {max(due - now, 0):.0f} s" if error.retry and due is not None else ""
        log.warning(
            "notify %s: %d event(s) not told by %s: %s%s", self._name, len(batch.notices), self._channel, error, again
        )
        self._say_dropped()

    def _say_dropped(self) -> None:
        with self._changed:
            dropped = self._outbox.dropped()
        if dropped:
            log.error(
                "notify %s: dropped %d event(s), which %s is never told: %s",
                self._name,
                dropped.total(),
                self._channel,
                in_words(dropped),
            )


def _on_our_clock(sends: Sequence[tuple[float, int]]) -> list[float]:
    """When each message was sent, from Unix to monotonic seconds, oldest first. None was sent later than now."""
    wall, now = time.time(), time.monotonic()
    return sorted(now - max(wall - at, 0.0) for at, count in sends for _ in range(count))
