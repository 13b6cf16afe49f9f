"""What `coldchain watch` says, and where."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from coldchain.collect.command_queue import Outcome
from coldchain.collect.watch_actions import outcome_in_words
from coldchain.collect.watch_alerts import WatchAlerts
from coldchain.errors import printable

log = logging.getLogger("coldchain.watch")

_STAMP = "%e/%b/%Y %H:%M:%S"


class _ToSyslog(logging.Handler):
    """What a daemon has to say of itself. What telling it says of itself would go round in circles."""

    def __init__(self, alerts: WatchAlerts) -> None:
        super().__init__()
        self._alerts = alerts
        self.addFilter(lambda record: not record.name.startswith("coldchain.notify"))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        self._alerts.log("watch.notice", self.format(record), "")


def log_to(alerts: WatchAlerts | None) -> None:
    """To standard error with the time; to syslog where nobody sees that."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="[%(asctime)s] %(message)s", datefmt=_STAMP)
    if alerts is not None:
        handler = _ToSyslog(alerts)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger().addHandler(handler)


def say(text: str) -> None:
    """One line with the time; events go to standard output and what follows to the other, as in iwatch."""
    stream = sys.stderr if text.startswith("* ") else sys.stdout
    print(f"[{time.strftime(_STAMP)}] {text}", file=stream, flush=True)


def warn(messages: Sequence[str]) -> None:
    """A line for each."""
    for message in messages:
        log.warning("%s", message)


def report(outcome: Outcome) -> None:
    """What a command printed, and whether it failed. A reader that is gone is nobody's trouble."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stdout.buffer.write(outcome.output)
        sys.stdout.buffer.flush()
    if outcome.output_bytes > len(outcome.output):
        log.warning(
            "%s: %d bytes more were printed, which are not shown",
            printable(outcome.order.line),
            outcome.output_bytes - len(outcome.output),
        )
    if words := outcome_in_words(outcome):
        log.warning("%s", words)
