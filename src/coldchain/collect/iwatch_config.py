"""iwatch's XML file → frozen rules. With and without the DOCTYPE; no entity is expanded and nothing is fetched.

    <config charset="utf-8">
      <guard email="iwatch@localhost" name="iWatch"/>                       who sends the mail
      <watchlist>
        <title>Movies</title>
        <contactpoint email="ada@example.org" name="Ada"/>                  who gets it
        <path type="recursive" events="close_write,moved_to" exec="…" filter="\\.mrc$" alert="off" syslog="on">/movies</path>
        <path type="exception">/movies/scratch</path>                       holds over all watch lists
        <path type="regexception">\\.tmp$</path>
      </watchlist>
    </config>

A fault is said with its line. What can be used without it is: an unknown attribute does not silence the path that bears
it, and a path that cannot be used leaves the others as they are.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import ParseError  # the exception only; defusedxml does the parsing

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from inotify_simple import flags

from coldchain.collect.argv_command import ArgvTemplate
from coldchain.collect.event_names import DEFAULT, EVENTS, KINDS, TOLD_ANYWAY, parse_events
from coldchain.collect.iwatch_command import CommandTemplate, read_command
from coldchain.collect.name_pattern import NamePattern
from coldchain.errors import ColdchainError, FormatError, UsageError

_LARGEST_BYTES = 16 << 20
_ATTRIBUTES = {
    "config": {"charset"},
    "guard": {"email", "name"},
    "watchlist": set(),
    "title": set(),
    "contactpoint": {"email", "name"},
    "path": {"type", "events", "exec", "filter", "alert", "syslog"},
}
_WITHIN = {
    "config": "",
    "guard": "config",
    "watchlist": "config",
    "title": "watchlist",
    "contactpoint": "watchlist",
    "path": "watchlist",
}
_TYPES = ("single", "recursive", "exception", "regexception")


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody who sends or gets mail."""

    email: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class PathRule:
    """What to do when one of `events` (a mask of `event_names`) happens to what lies at `path`.

    `path` is as it was written, without a slash at its end. `filter` is searched in the name, without its folder.
    `line` is that of the file, 0 where the rule comes from a command line.
    """

    path: str
    recursive: bool
    events: int = DEFAULT
    command: CommandTemplate | ArgvTemplate | None = None
    filter: NamePattern | None = None
    alert: bool = False
    syslog: bool = False
    contact: Contact | None = None
    title: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a file, where, and what became of it."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Everything that is to be watched, what is not, and what could not be understood."""

    rules: tuple[PathRule, ...]
    exceptions: tuple[str, ...] = ()
    patterns: tuple[NamePattern, ...] = ()
    guard: Contact | None = None
    charset: str = "utf-8"
    faults: tuple[Fault, ...] = ()


def read_config(path: Path) -> WatchConfig:
    """Read iwatch's file. Raises FormatError where it is no such file at all; smaller faults are in the result."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise FormatError(
            f"cannot be read ({error.strerror})", remedy="Name iwatch's XML file with -f", path=path
        ) from None
    if len(data) > _LARGEST_BYTES:
        raise FormatError("the file is larger than 16 MiB", expected="iwatch's XML", path=path)
    try:
        return parse_config(data)
    except FormatError as error:
        error.path = path
        raise


def parse_config(data: bytes) -> WatchConfig:
    """The same from bytes."""
    # iwatch validates only what begins so, and then the DTD's defaults hold; else `alert` is on unless it is off.
    reader = _Reader(alert_by_default=not data.startswith(b"<?xml"))
    parser = DefusedXMLParser(target=reader, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    reader.parser = parser
    try:
        parser.feed(data)
        parser.close()
    except DefusedXmlException as refusal:
        raise FormatError(
            f"the file declares entities ({type(refusal).__name__})",
            expected="plain elements and attributes",
            remedy="Write their text where they are used",
        ) from refusal
    except ParseError as failure:
        raise FormatError(f"the XML cannot be read: {failure}", remedy="Mend that line") from failure
    except (ValueError, LookupError) as failure:  # an encoding that does not exist
        raise FormatError(f"the XML cannot be read: {failure}", remedy="Write it in UTF-8") from failure
    return reader.result()


@dataclass(slots=True)
class _Path:
    attributes: Mapping[str, str]
    text: str
    line: int


@dataclass(slots=True)
class _Watchlist:
    line: int
    title: str = ""
    contact: Contact | None = None
    paths: list[_Path] = field(default_factory=list)


class _Reader:
    """Takes the elements as the parser meets them."""

    def __init__(self, *, alert_by_default: bool) -> None:
        self.parser: DefusedXMLParser | None = None
        self._alert_by_default = alert_by_default
        self._open: list[str] = []
        self._text: list[str] = []
        self._started: list[tuple[Mapping[str, str], int]] = []
        self._charset = "utf-8"
        self._guard: Contact | None = None
        self._lists: list[_Watchlist] = []
        self._faults: list[Fault] = []

    # -- what the parser calls --------------------------------------------------------------------------------------

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        line = int(getattr(self.parser, "parser").CurrentLineNumber)  # noqa: B009  # the stubs do not know it
        parent = self._open[-1] if self._open else ""
        self._open.append(tag)
        self._started.append((attributes, line))
        self._text.clear()
        if not parent and tag != "config":
            raise FormatError(f"the file's root is <{tag}>", expected="<config>, as iwatch's files have")
        if _WITHIN.get(tag) != parent:
            known = " or ".join(f"<{name}>" for name, within in _WITHIN.items() if within == parent)
            self._fault(line, f"<{tag}> is unknown here and passed over; known: {known or 'none'}")
            return
        for name in attributes.keys() - _ATTRIBUTES[tag]:
            known = ", ".join(sorted(_ATTRIBUTES[tag])) or "none"
            self._fault(line, f"<{tag}> has no attribute {name!r}; it is passed over. Known: {known}")
        if tag == "config":
            self._charset = attributes.get("charset", "utf-8")
        elif tag == "watchlist":
            self._lists.append(_Watchlist(line))

    def data(self, text: str) -> None:
        """Text, or a part of it."""
        self._text.append(text)

    def end(self, tag: str) -> None:
        """An element ends."""
        self._open.pop()
        attributes, line = self._started.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        if _WITHIN.get(tag) != (self._open[-1] if self._open else ""):
            return
        if tag == "guard":
            self._guard = self._contact(tag, attributes, line)
        elif tag == "title":
            self._lists[-1].title = text
        elif tag == "contactpoint":
            self._lists[-1].contact = self._contact(tag, attributes, line)
        elif tag == "path":
            self._lists[-1].paths.append(_Path(attributes, text, line))

    def close(self) -> None:
        """The document ends."""

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def result(self) -> WatchConfig:
        """The rules, once all has been read."""
        rules: list[PathRule] = []
        exceptions: list[str] = []
        patterns: list[NamePattern] = []
        for watchlist in self._lists:
            if not watchlist.paths:
                self._fault(watchlist.line, "a <watchlist> without a <path> watches nothing")
            for path in watchlist.paths:
                try:
                    kind = self._kind(path)
                    if kind == "exception":
                        exceptions.append(without_slash(path.text))
                    elif kind == "regexception":
                        patterns.append(NamePattern(path.text))
                    else:
                        rules.append(self._rule(path, watchlist, recursive=kind == "recursive"))
                except ColdchainError as error:
                    self._fault(path.line, f"{str(error).rstrip('.')}. This path is left out")
        if not self._guard and any(rule.alert for rule in rules):
            self._fault(1, "there is no <guard email=…>: mail has no sender")
        faults = tuple(sorted(self._faults, key=lambda fault: fault.line))
        return WatchConfig(tuple(rules), tuple(exceptions), tuple(patterns), self._guard, self._charset, faults)

    def _kind(self, path: _Path) -> str:
        kind = path.attributes.get("type", "single")
        if not path.text:
            raise UsageError("a <path> names no path", remedy="Write it between <path> and </path>")
        if "\0" in path.text:
            raise UsageError("a path holds a NUL")
        if kind not in _TYPES:
            raise UsageError(f"<path type={kind!r}> is unknown", expected=", ".join(_TYPES))
        return kind

    def _rule(self, path: _Path, watchlist: _Watchlist, *, recursive: bool) -> PathRule:
        attributes = path.attributes
        pattern, command = attributes.get("filter"), attributes.get("exec")
        alert = self._switch(path, "alert", self._alert_by_default)
        if alert and watchlist.contact is None:
            self._fault(path.line, "alert is on, but the <watchlist> has no <contactpoint email=…>: nobody gets mail")
        return PathRule(
            path=without_slash(path.text),
            recursive=recursive,
            events=self._events(path),
            command=read_command(command) if command else None,
            filter=None if pattern is None else NamePattern(pattern),
            alert=alert,
            syslog=self._switch(path, "syslog", False),
            contact=watchlist.contact,
            title=watchlist.title,
            line=path.line,
        )

    def _events(self, path: _Path) -> int:
        mask, unknown = parse_events(path.attributes.get("events", "default"))
        for word in unknown:
            self._fault(path.line, f"no event is called {word!r}; it is passed over. Known: {', '.join(EVENTS)}")
        return checked_events(mask)

    def _switch(self, path: _Path, name: str, usual: bool) -> bool:
        value = path.attributes.get(name)
        if value in {"on", "off", None}:
            return usual if value is None else value == "on"
        # As iwatch takes them: mail goes out unless it is off, syslog only where it is on.
        taken = name == "alert"
        self._fault(path.line, f"{name}={value!r} is neither on nor off; taken for {'on' if taken else 'off'}")
        return taken

    def _contact(self, tag: str, attributes: Mapping[str, str], line: int) -> Contact | None:
        email = attributes.get("email", "").strip()
        if not email:
            self._fault(line, f"<{tag}> has no email")
            return None
        return Contact(email, attributes.get("name", ""))

    def _fault(self, line: int, message: str) -> None:
        self._faults.append(Fault(line, message))


def checked_events(mask: int) -> int:
    """The mask, if it can tell anything; UsageError where it is made of flags alone."""
    if mask & (KINDS | TOLD_ANYWAY):
        return mask
    if mask & (flags.ISDIR | flags.ONESHOT):
        raise UsageError("isdir and oneshot only qualify other events", remedy="Name those as well")
    raise UsageError("no event is named that there is", expected=f"some of: {', '.join(EVENTS)}")


def without_slash(path: str) -> str:
    """The path without slashes at its end; "/" stays."""
    return path.rstrip("/") or "/"
