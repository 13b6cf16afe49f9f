"""iwatch's files are read as iwatch reads them, and what is wrong in them is said with its line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.collect.event_names import DEFAULT, EVENTS, event_words, parse_events
from coldchain.collect.iwatch_config import Contact, WatchConfig, checked_events, parse_config, read_config
from coldchain.collect.name_pattern import NamePattern
from coldchain.errors import FormatError, UsageError

WHOLE = """<?xml version="1.0" ?>
<!DOCTYPE config SYSTEM "/etc/iwatch/iwatch.dtd" >
<config charset="latin1">
  <guard email="iwatch@localhost" name="iWatch"/>
  <watchlist>
    <title>Movies &amp; more</title>
    <contactpoint email="ada@example.org" name="Ada"/>
    <path type="recursive" events="close_write, moved_to" exec="cp '%f' /x; echo &quot;%e&quot;" filter="\\.mrc$"
          alert="on" syslog="on">/movies/</path>
    <path type="exception">/movies/scratch/</path>
    <path type="regexception">\\.tmp$</path>
  </watchlist>
  <watchlist>
    <title>Other</title>
    <contactpoint email="bob@example.org"/>
    <path> /data µ </path>
  </watchlist>
</config>
"""
PLAIN = "<config><guard email='g@x'/><watchlist><title/><contactpoint email='c@x'/>{}</watchlist></config>"


def said(config: WatchConfig) -> str:
    """All faults, a line each."""
    return "\n".join(map(str, config.faults))


def test_a_whole_file_is_read() -> None:
    """Guard, lists, contact points, paths of every type and every attribute, with their lines."""
    config = parse_config(WHOLE.encode())
    assert (config.charset, config.guard, config.faults) == ("latin1", Contact("iwatch@localhost", "iWatch"), ())
    movies, other = config.rules
    assert (movies.path, movies.recursive, movies.alert, movies.syslog) == ("/movies", True, True, True)
    assert movies.events == EVENTS["close_write"] | EVENTS["moved_to"]
    assert movies.command is not None
    assert movies.command.source == "cp '%f' /x; echo \"%e\""
    assert movies.filter == NamePattern(r"\.mrc$")
    assert (movies.contact, movies.title, movies.line) == (Contact("ada@example.org", "Ada"), "Movies & more", 8)
    assert (other.path, other.recursive, other.events, other.command) == ("/data µ", False, DEFAULT, None)
    assert (other.alert, other.syslog, other.filter) == (False, False, None)
    assert (config.exceptions, config.patterns) == (("/movies/scratch",), (NamePattern(r"\.tmp$"),))


def test_without_the_first_line_mail_is_on_unless_it_is_off() -> None:
    """As in iwatch, whose defaults are the DTD's only where a file is validated."""
    paths = "<path>/a</path><path alert='off'>/b</path>"
    bare = parse_config(PLAIN.format(paths).encode())
    assert [rule.alert for rule in bare.rules] == [True, False]
    with_line = parse_config(b'<?xml version="1.0"?>' + PLAIN.format(paths).encode())
    assert [rule.alert for rule in with_line.rules] == [False, False]


@pytest.mark.parametrize(
    ("path", "says", "is_used"),
    [
        ("<path typ='single'>/a</path>", "'typ'", True),
        ("<path events='create,klose'>/a</path>", "'klose'", True),
        ("<path alert='perhaps'>/a</path>", "neither on nor off", True),
        ("<path syslog='1'>/a</path>", "neither on nor off", True),
        ("<path><b/>/a</path>", "<b> is unknown here", True),
        ("<pth>/x</pth><path>/a</path>", "<pth> is unknown here", True),
        ("<path type='twofold'>/a</path>", "'twofold'", False),
        ("<path events='klose'>/a</path>", "no event is named", False),
        ("<path events='isdir'>/a</path>", "only qualify", False),
        ("<path filter='('>/a</path>", "does not compile", False),
        ("<path type='regexception'>(</path>", "does not compile", False),
        ("<path exec='cat &lt;&lt;E %f'>/a</path>", "here-document", False),
        ("<path></path>", "names no path", False),
    ],
)
def test_a_fault_is_said_with_its_line_and_spoils_nothing_else(path: str, says: str, is_used: bool) -> None:
    """What can be used is; the good path beside it always is."""
    config = parse_config(b'<?xml version="1.0"?>\n' + PLAIN.format(f"\n{path}\n<path>/good</path>").encode())
    assert says in said(config)
    assert said(config).startswith("line 3: ")
    assert len(config.faults) == (2 if says == "no event is named" else 1)
    assert [rule.path for rule in config.rules] == (["/a", "/good"] if is_used else ["/good"])


def test_what_is_missing_is_said() -> None:
    """No guard, no contact point, addresses without an address, a list without paths."""
    config = parse_config(
        b"<config>\n<watchlist><title/><path alert='on'>/a</path></watchlist>\n"
        b"<watchlist><contactpoint name='x'/></watchlist></config>"
    )
    for words in ("no <guard", "no <contactpoint", "<contactpoint> has no email", "without a <path>"):
        assert words in said(config)
    assert [rule.path for rule in config.rules] == ["/a"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cannot be read"),
        (b"<config><watchlist>\n</config>", "line 2"),
        (b"<setup/>", "root is <setup>"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b'<?xml version="1.0" encoding="klingon"?><config/>', "klingon"),
        (b'<!DOCTYPE c [<!ENTITY a "b">]><config>&a;</config>', "entities"),
        (b'<!DOCTYPE c [<!ENTITY a SYSTEM "file:///etc/passwd">]><config>&a;</config>', "entities"),
        (b'<!DOCTYPE c [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]><config/>', "entities"),
        (b"<config>&nbsp;</config>", "undefined entity"),
        (b"<config a='1' a='2'/>", "duplicate attribute"),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Malformed XML, entities of any kind: stated, nothing expanded, nothing fetched."""
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(FormatError, match=says):
        parse_config(data)


def test_the_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a broken one both say which."""
    with pytest.raises(FormatError, match=r"nowhere\.xml.*No such file"):
        read_config(tmp_path / "nowhere.xml")
    (tmp_path / "w.xml").write_text("<config>")
    with pytest.raises(FormatError, match=r"w\.xml.*line 1"):
        read_config(tmp_path / "w.xml")
    (tmp_path / "w.xml").write_bytes(b" " * (17 << 20))
    with pytest.raises(FormatError, match="16 MiB"):
        read_config(tmp_path / "w.xml")


@given(st.binary(max_size=60), st.integers(0, len(WHOLE)))
def test_damaged_files_are_read_or_refused(garbage: bytes, at: int) -> None:
    """Whatever the bytes, there are rules or a stated refusal."""
    try:
        config = parse_config(WHOLE.encode()[:at] + garbage + WHOLE.encode()[at + len(garbage) :])
    except FormatError:
        return
    assert all(rule.path for rule in config.rules)


def test_event_names_come_and_go() -> None:
    """Every name of iwatch's has its mask, and an event is written as iwatch writes it."""
    assert parse_events("close_write,create,delete,move,delete_self,move_self") == (DEFAULT, ())
    assert parse_events(" all_events,\n oneshot ,,x") == (EVENTS["all_events"] | EVENTS["oneshot"], ("x",))
    assert event_words(EVENTS["create"] | EVENTS["isdir"]) == "IN_ISDIR,IN_CREATE"
    assert event_words(EVENTS["q_overflow"]) == "IN_Q_OVERFLOW"
    assert checked_events(EVENTS["unmount"]) == EVENTS["unmount"]
    with pytest.raises(UsageError, match="only qualify"):
        checked_events(EVENTS["oneshot"])


def test_patterns_are_perls_and_end_in_time() -> None:
    """Possessive quantifiers and look-behinds work; one that backtracks for ever says neither yes nor no."""
    assert NamePattern(r"(?<=run)\d++\.mrcs?$").found_in("a_run12.mrc") is True
    assert NamePattern("^x").found_in("ax") is False
    assert NamePattern(r"(x|xx)+y").found_in("x" * 255) is None
    assert NamePattern(r"[^a]\.tif").found_in("\udcff.tif") is True
    for source in ("(", "x" * 10_001, r"(?P<a>.)(?P<a", "*"):
        with pytest.raises(UsageError, match="regular expression"):
            NamePattern(source)
