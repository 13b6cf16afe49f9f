"""What follows when a rule's event has happened: a line, a command, a mail, syslog."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from typing import Protocol

from inotify_simple import flags

from coldchain import __version__
from coldchain.collect.argv_command import ArgvTemplate
from coldchain.collect.command_queue import CommandQueue, Order, Outcome
from coldchain.collect.event_names import event_words
from coldchain.collect.watch_rules import Happening
from coldchain.errors import ProcessingError, printable

log = logging.getLogger(__name__)

PROGRAM = "coldchain"


class Alerts(Protocol):
    """Whoever tells people and syslog; never waits."""

    def mail(self, to: str, kind: str, message: str, title: str) -> bool:
        """Have somebody written to; False where there is no address to write to or from."""

    def log(self, kind: str, message: str, title: str) -> None:
        """Have a line written to syslog."""


class NobodyAlerts:
    """Where nobody is to be told."""

    def mail(self, to: str, kind: str, message: str, title: str) -> bool:  # noqa: ARG002
        """Nobody is."""
        return False

    def log(self, kind: str, message: str, title: str) -> None:
        """Nothing is."""


class WatchActions:
    """Acts on what happens.

    Parameters
    ----------
    queue : takes the commands.
    alerts : takes mail and lines for syslog.
    say : called with what happened in one line, where somebody looks.
    """

    def __init__(self, queue: CommandQueue, alerts: Alerts, say: Callable[[str], None]) -> None:
        self._queue = queue
        self._alerts = alerts
        self._say = say

    def act(self, happening: Happening) -> None:
        """Do what the rule says."""
        rule = happening.rule
        words = event_words(happening.mask)
        text = f"{words} {happening.path}"
        if happening.old_path:
            text += f" (was {happening.old_path})"
        self._say(printable(text))
        kind = f"watch.{words.rpartition('IN_')[2].lower()}"
        if rule.syslog:
            self._alerts.log(kind, text, rule.title)
        if rule.command is not None:
            self._order(happening, words)
        if rule.alert and rule.contact is not None:
            self._alerts.mail(rule.contact.email, kind, text, rule.title)

    def _order(self, happening: Happening, words: str) -> None:
        try:
            order = _order_for(happening, words)
        except ProcessingError as error:
            log.error("%s: the command is not run: %s", printable(happening.path), error)  # noqa: TRY400
            return
        self._say(f"* Command: {printable(order.line)}")
        self._queue.put(order)


def _order_for(happening: Happening, words: str) -> Order:
    """Raises ProcessingError where a name is none that the command can take."""
    command, path = happening.rule.command, happening.path
    assert command is not None
    if isinstance(command, ArgvTemplate):
        folder, _, name = path.rpartition("/")
        is_folder = bool(happening.mask & flags.ISDIR)
        values = {
            "path": path,
            # Of a rule for one file it is the file's name, of the folder itself a dot.
            "relative": path.removeprefix(happening.rule.path).lstrip("/") or ("." if is_folder else name),
            "folder": folder or "/",
            "name": name,
            "old_path": happening.old_path,
            "events": words,
            "cookie": str(happening.cookie),
            "rule": happening.rule.title,
        }
        argv = command.fill(values)
        return Order(shlex.join(argv), path, argv)
    letters = {
        "p": PROGRAM,
        "v": __version__,
        "f": path,
        "F": happening.old_path,
        "e": words,
        "c": str(happening.cookie),
    }
    return Order(command.fill(letters), path)


def outcome_in_words(outcome: Outcome) -> str:
    """What became of a command, in one line; "" where all went well at once."""
    if outcome.is_good and outcome.attempt == 1:
        return ""
    if outcome.trouble:
        what = outcome.trouble
    elif outcome.status is not None and outcome.status < 0:
        what = f"it was ended by signal {-outcome.status}"
    else:
        what = f"exit status {outcome.status}"
    again = ""
    if outcome.next_try_seconds is not None:
        again = f"; it is tried again in {outcome.next_try_seconds:g} s"
    attempt = f" (attempt {outcome.attempt})" if outcome.attempt > 1 else ""
    return f"{printable(outcome.order.line)}: {what}{attempt}{again}"
