"""Reads what happened from the journal and has each receiver told, each in a thread of its own.

Whoever writes an event never waits for a receiver: the journal lies between. What a rule has told is recorded as a
cursor in the journal after every message, so that a restart goes on there. A process that is killed between a message
and its record tells that message twice; nothing is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from coldchain.errors import CatalogError, DeliveryError
from coldchain.model.events import Notice
from coldchain.notify.channel import Channel
from coldchain.notify.message import Batch, in_words
from coldchain.notify.outbox import Outbox
from coldchain.notify.rules import Pace, Rule

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
SAVE_SECONDS = 60.0
# Longer than any channel's patience: what is being sent at the end is waited for.
STOP_SECONDS = 40.0

_PAGE = 500


class Journal(Protocol):
    """Where events stand, and how far each rule has come. What it cannot do now it says by CatalogError."""

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """The events after that id, in the order of their ids."""

    def newest(self) -> UUID:
        """The newest event's id; the nil UUID where there is none."""

    def cursor(self, rule: str) -> UUID | None:
        """Up to which id that rule has told everything; None for a new rule."""

    def set_cursor(self, rule: str, event_id: UUID) -> None:
        """Record it."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told what, how often, by which way."""

    rule: Rule
    pace: Pace
    channel: Channel


class Notifier:
    """A part of the facility: `start`, then `stop`, which finishes the messages that are being sent."""

    def __init__(self, journal: Journal, receivers: Sequence[Receiver], *, read_seconds: float = READ_SECONDS) -> None:
        self._journal = journal
        self._receivers = receivers
        self._read_seconds = read_seconds
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name="notify-read", daemon=True)
        self._tellers: list[_Teller] = []
        self._last = UUID(int=0)

    def start(self) -> None:
        """Begin: each rule where it ended, a new one after the newest event. Raises CatalogError."""
        newest = self._journal.newest()
        starts = [self._start_of(receiver, newest) for receiver in self._receivers]
        self._last = min(starts, default=newest)
        self._tellers = [
            _Teller(self._journal, receiver, start) for receiver, start in zip(self._receivers, starts, strict=True)
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
        cursor = self._journal.cursor(receiver.rule.name)
        if cursor is None:
            self._journal.set_cursor(receiver.rule.name, newest)
            return newest
        # Older events would be dropped one by one.
        return max(cursor, _first_id_of(time.time() - receiver.pace.give_up_seconds))

    def _read(self) -> None:
        saved = time.monotonic()
        while not self._stopping.is_set():
            try:
                page = self._journal.after(self._last, limit=_PAGE)
            except CatalogError as error:
                log.warning("notify: %s", error)
                page = []
            if page:
                for teller in self._tellers:
                    teller.offer(page)
                self._last = page[-1].event.id
            if time.monotonic() >= saved + SAVE_SECONDS:
                saved = time.monotonic()
                for teller in self._tellers:
                    teller.save()
            if len(page) < _PAGE:
                self._stopping.wait(self._read_seconds)


class _Teller:
    """Tells one receiver, in a thread of its own."""

    def __init__(self, journal: Journal, receiver: Receiver, start: UUID) -> None:
        self._journal = journal
        self._channel = receiver.channel
        self._name = receiver.rule.name
        self._outbox = Outbox(receiver.rule, receiver.pace, start)
        self._changed = threading.Condition()  # guards the outbox
        self._saving = threading.Lock()  # no older cursor is written over a newer one
        self._saved = start
        self._stopping = False
        # A daemon: a name server that hangs cannot be hung up on.
        self._thread = threading.Thread(target=self._tell, name=f"notify-{self._name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

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
                cursor = self._outbox.cursor
            if cursor == self._saved:
                return
            try:
                self._journal.set_cursor(self._name, cursor)
            except CatalogError as error:
                log.warning("notify %s: how far it has come cannot be recorded yet: %s", self._name, error)
            else:
                self._saved = cursor

    def _tell(self) -> None:
        while (batch := self._next()) is not None:
            try:
                complaints = self._channel.send(batch)
            except DeliveryError as error:
                self._has_failed(batch, error)
            else:
                self._is_told(batch, complaints)
                self.save()

    def _next(self) -> Batch | None:
        """Wait for the next batch; None when it is time to stop."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if (batch := self._outbox.take(now)) is not None:
                    return batch
                due = self._outbox.due()
                self._changed.wait(None if due is None else max(due - now, 0.0))
        return None

    def _is_told(self, batch: Batch, complaints: Sequence[str]) -> None:
        with self._changed:
            failures = self._outbox.failures
            self._outbox.sent(time.monotonic())
        for complaint in complaints:
            log.error("notify %s: %s: refused: %s", self._name, self._channel, complaint)
        if failures:
            log.info("notify %s: %s takes messages again", self._name, self._channel)
        log.debug("notify %s: told %d event(s)", self._name, len(batch.notices))

    def _has_failed(self, batch: Batch, error: DeliveryError) -> None:
        with self._changed:
            now = time.monotonic()
            self._outbox.failed(now, retry=error.retry)
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


def _first_id_of(seconds: float) -> UUID:
    """The smallest id of an event of that time (Unix seconds): a UUIDv7 begins with its milliseconds (RFC 9562)."""
    return UUID(int=max(int(seconds * 1000), 0) << 80)
