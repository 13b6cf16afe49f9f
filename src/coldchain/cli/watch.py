"""`coldchain watch`: iwatch's command line and files, with nothing missed."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from coldchain import __version__
from coldchain.cli.background import in_background, told_to_read_again
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.watch_words import log_to, report, say, warn
from coldchain.collect.command_queue import CommandQueue
from coldchain.collect.event_names import EVENTS, parse_events
from coldchain.collect.event_tree import SETTLE_SECONDS
from coldchain.collect.iwatch_command import read_command
from coldchain.collect.iwatch_config import Contact, PathRule, WatchConfig, checked_events, read_config, without_slash
from coldchain.collect.name_pattern import NamePattern
from coldchain.collect.watch_actions import WatchActions
from coldchain.collect.watch_alerts import WatchAlerts, parse_smtp, parse_syslog
from coldchain.collect.watch_service import PAUSE_SECONDS, WatchService
from coldchain.errors import FormatError, UsageError, printable

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
log = logging.getLogger("coldchain.watch")

DEFAULT_FILES = (Path("/etc/iwatch/iwatch.xml"), Path("/etc/iwatch.xml"))
DEFAULT_PID_FILE = Path("/run/iwatch.pid")
_STOP_SECONDS = 10.0
# As iwatch: what changes how a shell reads a line is not handed on.
_NOT_HANDED_ON = ("ENV", "IFS", "CDPATH", "BASH_ENV")
_OF_TARGET = {"target", "watched", "command", "charset", "events", "mail", "recursive", "syslog", "name_filter"} | {
    "exception",
    "regex_exception",
}
_OF_CONFIG = {"config_file", "daemon", "pid_file", "verbose"}
# iwatch puts its options into a text of XML: who wants `&&` there writes `&amp;&amp;`, which no shell would understand.
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the rules come from: a file that is read again on SIGHUP, or a command line.

    `base` is what relative paths are relative to, where that will not be the folder in which the process is.
    """

    file: Path | None
    config: WatchConfig
    base: Path | None = None

    def __post_init__(self) -> None:
        if self.base is not None:
            object.__setattr__(self, "config", _with_absolute_paths(self.config, self.base))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"coldchain {__version__}")  # noqa: T201
        raise typer.Exit


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def watch(
    context: typer.Context,
    target: Annotated[list[str] | None, typer.Argument(metavar="[TARGET]", help="A file or a folder.")] = None,
    daemon: Annotated[bool, typer.Option("-d", "--daemon", help="Go into the background.")] = False,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="iwatch's XML file.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say each event.")] = False,
    pid_file: Annotated[Path | None, typer.Option("-p", "--pid-file", help="Where the process id is written.")] = None,
    command: Annotated[
        str | None, typer.Option("-c", "--command", help="Run for each event; %f %F %e %c %p %v.")
    ] = None,
    charset: Annotated[  # noqa: ARG001
        str | None, typer.Option("-C", "--charset", help="Taken and not used: mail is UTF-8.")
    ] = None,
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
    watched: Annotated[str | None, typer.Option("-w", hidden=True)] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="facility.toml: its [[watch]] rules.")] = None,
    initial: Annotated[bool, typer.Option("--initial", help="Report what is there at the start.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Commands at a time.")] = 1,
    retries: Annotated[int, typer.Option("--retries", min=0, help="How often a failed command is tried again.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds a command may take; 0: any.")] = 3600.0,
    settle: Annotated[float, typer.Option("--settle", min=0, help="Seconds without change.")] = SETTLE_SECONDS,
    smtp: Annotated[str, typer.Option("--smtp", help="The mail server, HOST or HOST:PORT.")] = "localhost",
    syslog_to: Annotated[str, typer.Option("--syslog-to", help="Where syslog listens.")] = "/dev/log",
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Watch files and folders, and run a command, write a mail or a line of syslog for what happens to them.

    With TARGET as `iwatch TARGET`; without it as a service by iwatch's XML file, or by the rules of a facility.toml,
    which SIGHUP has read again.

    Example: coldchain watch -r -e close_write,moved_to -c 'rsync -a %f /store/' /data
    """
    given = {name for name in context.params if _is_given(context, name)}
    _refuse_mixtures(given)
    pid_file = pid_file or (DEFAULT_PID_FILE if daemon else None)
    if config_file is not None:
        # Imported when it is called: it brings the whole service with it, which takes a second to come.
        facility = import_module("coldchain.cli.watch_facility")
        facility.watch_facility(config_file, daemon=daemon, pid_file=pid_file, verbose=verbose)
        return
    if given & _OF_TARGET:
        targets, syslog = _without_switch([*(target or ()), *filter(None, [watched])], syslog=syslog)
        rule = PathRule(
            path=_one(targets),
            recursive=recursive,
            events=_events(events),
            command=read_command(_without_entities(command)) if command else None,
            filter=None if name_filter is None else NamePattern(_without_entities(name_filter)),
            alert=mail is not None,
            syslog=syslog,
            contact=Contact(mail) if mail else None,
        )
        source = _from_options(rule, exception or (), [_without_entities(each) for each in regex_exception or ()])
    else:
        path = file or _default_file()
        source = _Source(path, _read(path, _complain))
    smtp_host, smtp_port = parse_smtp(smtp)
    alerts = WatchAlerts(smtp_host=smtp_host, smtp_port=smtp_port, syslog=parse_syslog(syslog_to))
    queue = CommandQueue(
        report,
        jobs=jobs,
        retries=retries,
        timeout_seconds=timeout or None,
        environment={name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON},
    )
    log_to(alerts if daemon else None)
    if daemon:
        source = _Source(source.file and source.file.absolute(), source.config, Path.cwd())
    says = verbose or source.file is None
    _serve(source, alerts, queue, (daemon, pid_file), says=says, initial=initial, settle_seconds=settle)


def _is_given(context: typer.Context, name: str) -> bool:
    # Newer versions of Typer bring their own Click: its enumeration cannot be named.
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def _refuse_mixtures(given: set[str]) -> None:
    if given & _OF_TARGET and given & {"daemon", "file", "pid_file"}:
        raise UsageError("-d, -f and -p are for a file of rules, the other options for a TARGET", remedy="Use one kind")
    if "config_file" in given and given - _OF_CONFIG:
        raise UsageError(
            "with --config the rules of facility.toml say what is watched and how",
            expected="besides it -d, -p and -v at most",
            remedy="Write the rest into its [[watch]] rules",
        )


def _without_entities(text: str) -> str:
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    return text


def _without_switch(targets: list[str], *, syslog: bool) -> tuple[list[str], bool]:
    """iwatch's manual says `-s on|off`, iwatch itself takes `-s`: both are understood."""
    if syslog and len(targets) == 2 and targets[0] in {"on", "off"}:
        return targets[1:], targets[0] == "on"
    return targets, syslog


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


def _complain(message: str) -> None:
    print(f"coldchain: {message}", file=sys.stderr)  # noqa: T201


def _read(path: Path, complain: Callable[[str], None]) -> WatchConfig:
    """A file that can be used; what cannot be used of it is complained of. Raises FormatError."""
    config = read_config(path)
    for fault in config.faults:
        complain(printable(f"{path}: {fault}"))
    if not config.rules:
        raise FormatError("no path in it can be watched", remedy="Add a <path>, or mend those above", path=path)
    return config


def _with_absolute_paths(config: WatchConfig, base: Path) -> WatchConfig:
    rules = tuple(replace(rule, path=str(base / rule.path)) for rule in config.rules)
    return replace(config, rules=rules, exceptions=tuple(str(base / path) for path in config.exceptions))


# -- watching ---------------------------------------------------------------------------------------------------------


def _serve(
    source: _Source,
    alerts: WatchAlerts,
    queue: CommandQueue,
    background: tuple[bool, Path | None],
    *,
    says: bool,
    initial: bool,
    settle_seconds: float,
) -> None:
    actions = WatchActions(queue, alerts, say if says else lambda _: None)
    # The signals first: whoever reads the file of the process id may send one at once.
    with (
        stop_on_signals() as stopping,
        told_to_read_again(source.file is not None) as again,
        in_background(*background),
    ):
        warn(alerts.use(source.config))
        service = WatchService(source.config, initial=initial, settle_seconds=settle_seconds)
        queue.start()
        try:
            while not stopping.is_set():
                if again.is_set():
                    again.clear()
                    _read_again(source, service, alerts)
                _act(service, actions, PAUSE_SECONDS)
            _act(service, actions, 0)  # what the kernel has told by now
        finally:
            service.close()
            queue.stop(_STOP_SECONDS)
            warn(alerts.close(_STOP_SECONDS))


def _act(service: WatchService, actions: WatchActions, timeout_seconds: float) -> None:
    for happening in service.poll(timeout_seconds):
        actions.act(happening)


def _read_again(source: _Source, service: WatchService, alerts: WatchAlerts) -> None:
    """A file that cannot be used leaves everything as it was."""
    assert source.file is not None
    try:
        config = _Source(source.file, _read(source.file, log.warning), source.base).config
    except FormatError as error:
        log.warning("%s. The rules stay as they were", str(error).rstrip("."))
        return
    warn(alerts.use(config))
    service.change(config)
    log.warning("%s was read again: %d path(s)", source.file, len(config.rules))
