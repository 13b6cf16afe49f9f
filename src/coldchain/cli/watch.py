"""`coldchain watch`: iwatch's command line and files, with nothing missed."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from coldchain.cli.signals import stop_on_signals
from coldchain.collect.command_queue import CommandQueue, Outcome
from coldchain.collect.event_names import EVENTS, parse_events
from coldchain.collect.event_tree import SETTLE_SECONDS
from coldchain.collect.iwatch_command import read_command
from coldchain.collect.iwatch_config import Contact, PathRule, WatchConfig, checked_events, read_config, without_slash
from coldchain.collect.name_pattern import NamePattern
from coldchain.collect.watch_actions import WatchActions, outcome_in_words
from coldchain.collect.watch_alerts import WatchAlerts, parse_smtp, parse_syslog
from coldchain.collect.watch_service import WatchService
from coldchain.errors import FormatError, UsageError, printable

app = typer.Typer(add_completion=False)
log = logging.getLogger("coldchain.watch")

DEFAULT_FILES = (Path("/etc/iwatch/iwatch.xml"), Path("/etc/iwatch.xml"))
DEFAULT_PID_FILE = Path("/run/iwatch.pid")
_STAMP = "%e/%b/%Y %H:%M:%S"
_STOP_SECONDS = 10.0
# As iwatch: what changes how a shell reads a line is not handed on.
_NOT_HANDED_ON = ("ENV", "IFS", "CDPATH", "BASH_ENV")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the rules come from: a file that is read again on SIGHUP, or a command line."""

    file: Path | None
    config: WatchConfig


@app.command()
def watch(
    target: Annotated[list[str] | None, typer.Argument(metavar="[TARGET]", help="A file or a folder.")] = None,
    daemon: Annotated[bool, typer.Option("-d", "--daemon", help="Go into the background.")] = False,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="iwatch's XML file.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say each event.")] = False,
    pid_file: Annotated[Path | None, typer.Option("-p", "--pid-file", help="Where the process id is written.")] = None,
    command: Annotated[
        str | None, typer.Option("-c", "--command", help="Run for each event; %f %F %e %c %p %v.")
    ] = None,
    charset: Annotated[str | None, typer.Option("-C", "--charset", help="Taken and not used: mail is UTF-8.")] = None,
    events: Annotated[str | None, typer.Option("-e", "--events", help="Comma-separated: close_write,moved_to…")] = None,
    mail: Annotated[str | None, typer.Option("-m", "--mail", help="Who is written to.")] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="With all folders beneath.")] = False,
    syslog: Annotated[bool, typer.Option("-s", "--syslog", help="Report to syslog.")] = False,
    name_filter: Annotated[
        str | None, typer.Option("-t", "--filter", help="Regular expression that a name must hold.")
    ] = None,
    exception: Annotated[list[str] | None, typer.Option("-x", "--exception", help="A path that is left out.")] = None,
    regex_exception: Annotated[
        list[str] | None, typer.Option("-X", "--regex-exception", help="Regular expression of what is left out.")
    ] = None,
    initial: Annotated[bool, typer.Option("--initial", help="Report what is there at the start.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Commands at a time.")] = 1,
    retries: Annotated[int, typer.Option("--retries", min=0, help="How often a failed command is tried again.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds a command may take; 0: any.")] = 3600.0,
    settle: Annotated[float, typer.Option("--settle", min=0, help="Seconds without change.")] = SETTLE_SECONDS,
    smtp: Annotated[str, typer.Option("--smtp", help="The mail server, HOST or HOST:PORT.")] = "localhost",
    syslog_to: Annotated[str, typer.Option("--syslog-to", help="Where syslog listens.")] = "/dev/log",
) -> None:
    """Watch files and folders, and run a command, write a mail or a line of syslog for what happens to them.

    With TARGET as `iwatch TARGET`; without it as a service by iwatch's XML file, which SIGHUP has read again.

    Example: coldchain watch -r -e close_write,moved_to -c 'rsync -a %f /store/' /data
    """
    for_target = any((command, charset, events, mail, recursive, syslog, name_filter, exception, regex_exception))
    if (target or for_target) and (daemon or file or pid_file):
        raise UsageError("-d, -f and -p are for a file of rules, the other options for a TARGET", remedy="Use one kind")
    if target or for_target:
        rule = PathRule(
            path=_one(_without_switch(list(target or ()), syslog=syslog)),
            recursive=recursive,
            events=_events(events),
            command=read_command(command) if command else None,
            filter=None if name_filter is None else NamePattern(name_filter),
            alert=mail is not None,
            syslog=syslog,
            contact=Contact(mail) if mail else None,
        )
        source = _from_options(rule, exception or (), regex_exception or ())
    else:
        source = _from_file(file or _default_file())
    smtp_host, smtp_port = parse_smtp(smtp)
    alerts = WatchAlerts(smtp_host=smtp_host, smtp_port=smtp_port, syslog=parse_syslog(syslog_to))
    queue = CommandQueue(
        _report,
        jobs=jobs,
        retries=retries,
        timeout_seconds=timeout or None,
        environment={name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON},
    )
    _log_to(alerts if daemon else None)
    with _process(source, daemon=daemon, pid_file=pid_file) as started:
        _watch(started, alerts, queue, says=verbose or source.file is None, initial=initial, settle_seconds=settle)


def _without_switch(targets: list[str], *, syslog: bool) -> list[str]:
    """iwatch's manual says `-s on|off`, iwatch itself takes `-s`: both are understood."""
    if syslog and len(targets) == 2 and targets[0] in {"on", "off"}:
        return targets[1:]
    return targets


def _one(targets: list[str]) -> str:
    if len(targets) != 1:
        raise UsageError(f"{len(targets)} targets", expected="one TARGET", remedy="Watch more by a file of rules")
    return without_slash(targets[0])


def _from_options(rule: PathRule, exceptions: Sequence[str], patterns: Sequence[str]) -> _Source:
    guard = Contact(f"{getpass.getuser()}@localhost")
    paths, expressions = tuple(map(without_slash, exceptions)), tuple(map(NamePattern, patterns))
    return _Source(None, WatchConfig((rule,), paths, expressions, guard))


def _events(words: str | None) -> int:
    mask, unknown = parse_events("default" if words is None else words)
    if unknown:
        raise UsageError(f"no event is called {unknown[0]!r}", expected=f"some of: {', '.join(EVENTS)}")
    return checked_events(mask)


def _default_file() -> Path:
    found = [path for path in DEFAULT_FILES if path.is_file()]
    if not found:
        names = " nor ".join(map(str, DEFAULT_FILES))
        raise UsageError(f"no TARGET is named, and there is neither {names}", remedy="Name a TARGET, or a file with -f")
    return found[0]


def _from_file(path: Path) -> _Source:
    config = read_config(path)
    for fault in config.faults:
        print(f"coldchain: {printable(f'{path}: {fault}')}", file=sys.stderr)  # noqa: T201
    if not config.rules:
        raise FormatError("no path in it can be watched", remedy="Add a <path>, or mend those above", path=path)
    return _Source(path, config)


# -- the process ------------------------------------------------------------------------------------------------------


@contextmanager
def _process(source: _Source, *, daemon: bool, pid_file: Path | None) -> Iterator[_Source]:
    """Go into the background where that is wanted, and leave the process id."""
    path = (pid_file or (DEFAULT_PID_FILE if daemon else None)) and (pid_file or DEFAULT_PID_FILE).absolute()
    # Opened before anything else: who cannot write it is told so.
    stream = None if path is None else path.open("w")
    if daemon:
        # From now on the folder is another.
        source = _Source(source.file and source.file.absolute(), _with_absolute_paths(source.config))
        if os.fork():
            os._exit(0)
        _detach()
    if stream is not None:
        with stream:
            stream.write(f"{os.getpid()}\n")
    try:
        yield source
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink()


def _detach() -> None:
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _with_absolute_paths(config: WatchConfig) -> WatchConfig:
    rules = tuple(replace(rule, path=str(Path(rule.path).absolute())) for rule in config.rules)
    return replace(config, rules=rules, exceptions=tuple(str(Path(path).absolute()) for path in config.exceptions))


# -- watching ---------------------------------------------------------------------------------------------------------


def _watch(
    source: _Source,
    alerts: WatchAlerts,
    queue: CommandQueue,
    *,
    says: bool,
    initial: bool,
    settle_seconds: float,
) -> None:
    actions = WatchActions(queue, alerts, _say if says else lambda _: None)
    _warn(alerts.use(source.config))
    service = WatchService(source.config, initial=initial, settle_seconds=settle_seconds)
    queue.start()
    try:
        with stop_on_signals() as stopping, _told_to_read_again(source.file) as again:
            while not stopping.is_set():
                if again.is_set():
                    again.clear()
                    _read_again(source, service, alerts)
                for happening in service.poll():
                    actions.act(happening)
            for happening in service.poll(0):  # what the kernel has told by now
                actions.act(happening)
    finally:
        service.close()
        queue.stop(_STOP_SECONDS)
        _warn(alerts.close(_STOP_SECONDS))


@contextmanager
def _told_to_read_again(file: Path | None) -> Iterator[threading.Event]:
    """An event that SIGHUP sets, where there is a file to read again."""
    again = threading.Event()
    if file is None:
        yield again
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        again.set()

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield again
    finally:
        signal.signal(signal.SIGHUP, before)


def _read_again(source: _Source, service: WatchService, alerts: WatchAlerts) -> None:
    """A file that cannot be used leaves everything as it was."""
    assert source.file is not None
    try:
        config = _from_file(source.file).config
    except FormatError as error:
        log.warning("%s. The rules stay as they were", error)
        return
    _warn(alerts.use(config))
    service.change(_with_absolute_paths(config))
    log.warning("%s was read again: %d path(s)", source.file, len(config.rules))


# -- words ------------------------------------------------------------------------------------------------------------


class _ToSyslog(logging.Handler):
    """What a daemon has to say of itself. What telling it says of itself would go round in circles."""

    def __init__(self, alerts: WatchAlerts) -> None:
        super().__init__()
        self._alerts = alerts
        self.addFilter(lambda record: not record.name.startswith("coldchain.notify"))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        self._alerts.log("watch.notice", self.format(record), "")


def _log_to(alerts: WatchAlerts | None) -> None:
    """To standard error with the time; to syslog where nobody sees that."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="[%(asctime)s] %(message)s", datefmt=_STAMP)
    if alerts is not None:
        handler = _ToSyslog(alerts)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger().addHandler(handler)


def _say(text: str) -> None:
    """One line with the time; events go to standard output and what follows to the other, as in iwatch."""
    stream = sys.stderr if text.startswith("* ") else sys.stdout
    print(f"[{time.strftime(_STAMP)}] {text}", file=stream, flush=True)


def _warn(messages: list[str]) -> None:
    for message in messages:
        log.warning("%s", message)


def _report(outcome: Outcome) -> None:
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
