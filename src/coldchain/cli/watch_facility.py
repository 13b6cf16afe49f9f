"""`coldchain watch --config facility.toml`: the rules of a facility, without the rest of it."""

from __future__ import annotations

import logging
from pathlib import Path

from coldchain import config
from coldchain.cli.background import in_background, told_to_read_again
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.watch_words import log_to, report, say
from coldchain.collect.facility_watch import FacilityWatch
from coldchain.collect.watch_alerts import WatchAlerts
from coldchain.collect.watch_section import FacilityRule
from coldchain.errors import ColdchainError, ConfigError
from coldchain.service import FacilityLock

log = logging.getLogger("coldchain.watch")

_PAUSE_SECONDS = 0.5


def watch_facility(path: Path, *, daemon: bool, pid_file: Path | None, verbose: bool) -> None:
    """Watch until SIGTERM or Ctrl-C. Raises ColdchainError where the file has no rules, or where others watch by it."""
    path = path.absolute()
    settings = config.load(path)
    rules = _rules(settings)
    alerts = WatchAlerts()
    log_to(alerts if daemon else None)
    # The signals first: whoever reads the file of the process id may send one at once.
    with (
        FacilityLock(settings),
        stop_on_signals() as stopping,
        told_to_read_again() as again,
        in_background(daemon, pid_file),
    ):
        watch = FacilityWatch(rules, say=say if verbose else log.debug, told=report)
        watch.start()
        try:
            while not stopping.wait(_PAUSE_SECONDS):
                if again.is_set():
                    again.clear()
                    _read_again(path, watch)
                if not watch.alive():
                    raise ColdchainError("a rule's watch has ended by itself", remedy="See the log; start it again")
        finally:
            watch.stop()
            alerts.close()


def _read_again(path: Path, watch: FacilityWatch) -> None:
    """A file that cannot be used leaves everything as it was."""
    try:
        rules = _rules(config.load(path))
    except ConfigError as error:
        log.warning("%s. The rules stay as they were", str(error).rstrip("."))
        return
    watch.change(rules)
    log.warning("%s was read again: %d rule(s)", path, len(rules))


def _rules(settings: config.Settings) -> list[FacilityRule]:
    rules = settings.watch_rules()
    if not rules:
        raise ConfigError("there is no rule to watch by", remedy="Add a [[watch]].", path=settings.origin)
    return rules
