"""The `[[watch]]` rules of a facility, each watched in a thread of its own: none can hold up or end another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from coldchain.collect.command_queue import CommandQueue, Outcome
from coldchain.collect.watch_actions import NobodyAlerts, WatchActions, outcome_in_words
from coldchain.collect.watch_alerts import ReceiverAlerts
from coldchain.collect.watch_section import FacilityRule
from coldchain.collect.watch_service import WatchService
from coldchain.errors import printable

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
_SHOWN_CHARACTERS = 500
_READY_SECONDS = 60.0


class FacilityWatch:
    """A part of the facility: `start`, then `stop`, which lets the commands that run come to their end.

    Commands are run at least once for what happens while this runs. What happens while it does not is not known
    afterwards; a rule with `initial` takes everything that is there at the start for new.

    Parameters
    ----------
    rules : of different names.
    say : called with each event and each command in one line.
    told : called with what became of each attempt, in a thread of the queue.
    """

    def __init__(
        self,
        rules: Sequence[FacilityRule],
        *,
        say: Callable[[str], None] = log.debug,
        told: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._say = say
        self._told = told or log_outcome
        self._watches = {rule.name: self._watch(rule) for rule in rules}

    def start(self) -> None:
        """Begin."""
        for watch in self._watches.values():
            watch.start()

    def change(self, rules: Sequence[FacilityRule]) -> None:
        """Go over to other rules. One that has changed begins before its old form ends, so that nothing is missed."""
        wanted = {rule.name: rule for rule in rules}
        kept = {name: watch for name, watch in self._watches.items() if watch.rule == wanted.get(name)}
        new = {name: self._watch(rule) for name, rule in wanted.items() if name not in kept}
        for watch in new.values():
            watch.start()
        for watch in new.values():
            watch.wait_until_ready(_READY_SECONDS)
        _stop([watch for name, watch in self._watches.items() if name not in kept])
        self._watches = {name: kept.get(name) or new[name] for name in wanted}

    def stop(self) -> None:
        """Take nothing new, let the commands go on for some seconds, and end."""
        _stop(list(self._watches.values()))

    def idle(self) -> bool:
        """Whether everything has been listed, and no command waits or runs."""
        return all(watch.idle() for watch in self._watches.values())

    def alive(self) -> bool:
        """Whether every thread runs. One that ended by itself has left its traceback in the log."""
        return all(watch.alive() for watch in self._watches.values())

    def _watch(self, rule: FacilityRule) -> _RuleWatch:
        return _RuleWatch(rule, self._say, self._told)


def log_outcome(outcome: Outcome) -> None:
    """What failed is a warning, with the beginning of what it printed."""
    words = outcome_in_words(outcome)
    if words:
        printed = printable(outcome.output[:_SHOWN_CHARACTERS].decode("utf-8", "replace").strip())
        log.warning("%s%s", words, f"; it printed: {printed}" if printed else "")


class _RuleWatch:
    def __init__(self, rule: FacilityRule, say: Callable[[str], None], told: Callable[[Outcome], None]) -> None:
        self.rule = rule
        self._say = say
        self._told = told
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._alerts: ReceiverAlerts | None = None
        self._queue = CommandQueue(
            self._conclude, jobs=rule.jobs, retries=rule.attempts - 1, timeout_seconds=rule.timeout_seconds
        )
        self._thread = threading.Thread(target=self._run, name=f"watch-{rule.name}")

    def start(self) -> None:
        self._alerts = None if self.rule.receiver is None else ReceiverAlerts(self.rule.receiver)
        self._queue.start()
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping.set()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def wait_until_ready(self, seconds: float) -> None:
        self._ready.wait(seconds)

    def idle(self) -> bool:
        return self._ready.is_set() and self._queue.is_idle()

    def alive(self) -> bool:
        return self._thread.is_alive() and self._queue.is_alive()

    def _run(self) -> None:
        rule = self.rule
        with ExitStack() as at_end:
            at_end.callback(self._close_alerts)
            at_end.callback(self._queue.stop, STOP_SECONDS)
            service = WatchService(rule.config, initial=rule.initial, settle_seconds=rule.settle_seconds)
            at_end.callback(service.close)
            actions = WatchActions(self._queue, self._alerts or NobodyAlerts(), self._say)
            while not self._stopping.is_set():
                for happening in service.poll():
                    actions.act(happening)
                if service.is_ready:
                    self._ready.set()
            for happening in service.poll(0):  # what the kernel has told by now
                actions.act(happening)

    def _conclude(self, outcome: Outcome) -> None:
        self._told(outcome)
        if self._alerts is not None and not outcome.is_good and outcome.next_try_seconds is None:
            self._alerts.log("watch.failed", outcome_in_words(outcome), self.rule.name)

    def _close_alerts(self) -> None:
        for words in () if self._alerts is None else self._alerts.close(STOP_SECONDS):
            log.warning("%s", words)


def _stop(watches: Sequence[_RuleWatch]) -> None:
    for watch in watches:
        watch.ask_to_stop()
    for watch in watches:
        watch.join()
