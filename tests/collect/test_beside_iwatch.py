"""iwatch itself and `coldchain watch`, side by side: the same commands for the same happenings, and those that it lost.

Each program watches a folder of its own in which the same is done, one thing after the other, so that iwatch keeps up.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = {"iwatch": ["/usr/bin/iwatch"], "coldchain": [sys.executable, "-m", "coldchain", "watch"]}
DTD = Path("/etc/iwatch/iwatch.dtd")
pytestmark = pytest.mark.skipif(shutil.which("iwatch") is None, reason="iwatch is not installed (package iwatch)")

Action = Callable[[Path], object]


class Pair:
    """Both programs at work, each in `PROGRAM/data`, with a log of what their commands wrote.

    `words` may hold {root}, {log} and {file}, `xml` {root} and {log}. The commands must report that `probe` was closed.
    """

    def __init__(self, folder: Path, words: Sequence[str], xml: str = "", *, began: Sequence[Action] = ()) -> None:
        self.words, self.xml = words, xml
        self.places = {program: folder / program for program in PROGRAMS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for program, place in self.places.items():
            (place / "data").mkdir(parents=True)
            (place / "log").touch()
            for action in began:
                action(place / "data")
            self.write_xml(program, xml)
            given = [*PROGRAMS[program], *(self._fill(program, word) for word in words)]
            with (place / "said").open("wb") as said:
                self.processes[program] = subprocess.Popen(given, stdout=said, stderr=said)

    def _fill(self, program: str, text: str) -> str:
        place = self.places[program]
        values = {"root": place / "data", "log": place / "log", "file": place / "rules.xml", "dtd": DTD}
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def write_xml(self, program: str, xml: str) -> None:
        """Give a program its rules."""
        (self.places[program] / "rules.xml").write_text(self._fill(program, xml))

    def until(
        self,
        condition: Callable[[str], bool],
        action: Action = lambda _: None,
        programs: Sequence[str] = tuple(PROGRAMS),
    ) -> None:
        """Wait until it holds for both programs' logs, repeating an action meanwhile."""
        end = time.monotonic() + 60
        while waiting := [program for program in programs if not condition(self.log(program))]:
            for program in waiting:
                action(self.places[program] / "data")
            time.sleep(0.02)
            said = {program: (self.places[program] / "said").read_text() for program in waiting}
            assert time.monotonic() < end, (said, {program: self.log(program) for program in waiting})

    def log(self, program: str) -> str:
        """What its commands wrote, with `ROOT` for its folder."""
        place = self.places[program]
        return (place / "log").read_text(errors="surrogateescape").replace(str(place / "data"), "ROOT")

    def ready(self) -> None:
        """Until both watch; then their logs are empty."""
        self.until(lambda log: "probe" in log, lambda root: (root / "probe").write_text("x"))
        time.sleep(0.5)
        for place in self.places.values():
            os.truncate(place / "log", 0)

    def lines(self, *actions: Action) -> dict[str, list[str]]:
        """Do the same in both folders, each action when both are through with the one before; what commands wrote."""
        for number, action in enumerate(actions):
            for place in self.places.values():
                action(place / "data")
                (place / f"data/last{number}").write_text("x")
            self.until(lambda log, number=number: f"IN_CLOSE_WRITE ROOT/last{number}" in log)  # type: ignore[misc]
        logs = {program: once(self.log(program).splitlines()) for program in PROGRAMS}
        # A folder is opened and listed by each program in its own way.
        ours = ("IN_ISDIR,IN_OPEN", "IN_ISDIR,IN_ACCESS", "IN_ISDIR,IN_CLOSE_NOWRITE")
        return {
            program: [
                line
                for line in log
                if "ROOT/last" not in line and "ROOT/probe" not in line and not line.startswith(ours)
            ]
            for program, log in logs.items()
        }

    def signal(self, number: signal.Signals) -> None:
        """To both."""
        for process in self.processes.values():
            process.send_signal(number)

    def close(self) -> None:
        """End both."""
        for process in self.processes.values():
            process.kill()
            process.wait()


def once(lines: Sequence[str]) -> list[str]:
    """Without what is repeated at once: whether the kernel merges such events depends on how soon they are read."""
    return [line for line, _ in itertools.groupby(lines)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Start both programs and wait until they watch; they are ended at the end."""
    made: list[Pair] = []

    def start(words: Sequence[str], xml: str = "", **options: Any) -> Pair:
        made.append(Pair(tmp_path / str(len(made)), words, xml, **options))
        made[-1].ready()
        return made[-1]

    yield start
    for both in made:
        both.close()


def touch(name: str) -> Action:
    """Make a file, or write to it."""
    return lambda root: (root / name).write_text("x")


def make(name: str) -> Action:
    """Make a folder."""
    return lambda root: (root / name).mkdir()


def move(name: str, to: str) -> Action:
    """Rename; the old place may be beside the folder."""
    return lambda root: (root / name).rename(root / to)


def outside(root: Path) -> Path:
    """A place that nobody watches."""
    return root.parent.parent / f"{root.parent.name}-{root.name}"


LIFE: list[Action] = [
    touch("f"),
    lambda root: (root / "f").read_text(),
    lambda root: (root / "f").chmod(0o600),
    lambda root: os.truncate(root / "f", 0),
    move("f", "g"),
    lambda root: (root / "g").rename(outside(root)),
    lambda root: outside(root).rename(root / "back"),
    lambda root: (root / "back").unlink(),
    make("d"),
    move("d", "e"),
    lambda root: (root / "e").rmdir(),
    touch("a b'c\"d$(e);&|<>*?[f]{g}#!~`h`"),
]


@pytest.mark.parametrize("recursive", [[], ["-r"]])
def test_all_events_of_a_life_fire_the_same_commands_in_the_same_order(
    pair: Callable[..., Pair], recursive: list[str]
) -> None:
    """Making, writing, reading, chmod, truncating, renaming, moving out and in, deleting; files and folders."""
    both = pair([*recursive, "-e", "all_events", "-c", "echo %e %f old:%F >> {log}", "{root}"])
    lines = both.lines(*LIFE)
    assert lines["coldchain"] == lines["iwatch"]
    assert len({line.split()[0] for line in lines["coldchain"]}) >= 12


KINDS = ["default", "access", "modify", "attrib", "close_write", "close_nowrite", "close", "open", "moved_from"]
KINDS += ["moved_to", "move", "create", "delete", "delete_self", "move_self", "create,isdir", "all_events"]


def test_each_event_alone_fires_the_same_commands(pair: Callable[..., Pair]) -> None:
    """And no other than those that were asked for: a folder for each, in one file."""
    path = '<path type="single" events="{0}" alert="off" exec="echo {0} %e %f &gt;&gt; {{log}}">{{root}}/{0}</path>'
    last = '<path type="single" events="close_write" alert="off" exec="echo %e %f &gt;&gt; {log}">{root}</path>'
    paths = "".join(path.replace("{0}", kind).replace("{{", "{").replace("}}", "}") for kind in KINDS)
    contact = "<title/><contactpoint email='a@example.org'/>"
    xml = f"<config><guard email='g@example.org'/><watchlist>{contact}{paths}{last}</watchlist></config>"
    both = pair(["-f", "{file}"], xml, began=[make(kind) for kind in KINDS])
    lives = [lambda root, act=act: [act(root / kind) for kind in KINDS] for act in LIFE]
    ends: list[Action] = [
        lambda root: [shutil.rmtree(root / kind) for kind in KINDS if kind != "move_self"],
        lambda root: (root / "move_self").rename(root / "moved"),
    ]
    lines = both.lines(*lives, *ends)
    by_kind = {
        program: {kind: [line for line in log if line.startswith(f"{kind} ")] for kind in KINDS}
        for program, log in lines.items()
    }
    for kind in KINDS:
        reading = ("IN_ISDIR,IN_OPEN", "IN_ISDIR,IN_ACCESS", "IN_ISDIR,IN_CLOSE_NOWRITE")
        said = {
            program: [line for line in by_kind[program][kind] if line.split()[1] not in reading] for program in PROGRAMS
        }
        assert said["coldchain"] == said["iwatch"], kind
    assert all(by_kind["coldchain"].values())


def test_specifiers_have_the_same_values(pair: Callable[..., Pair]) -> None:
    """%e %f %F %c; %p and %v are the program's own; the old name only on a move, whose halves share their number."""
    both = pair(["-e", "move,close_write", "-c", "echo %e %f '%F' %c %p %v >> {log}", "{root}"])
    lines = both.lines(touch("f"), move("f", "g"))
    for program, name in (("iwatch", "iWatch 0.2.2"), ("coldchain", "coldchain 0.1.0")):
        closed, gone, come = lines[program]
        cookie = gone.split()[2]
        assert closed == f"IN_CLOSE_WRITE ROOT/f  0 {name}"
        assert gone == f"IN_MOVED_FROM ROOT/f  {cookie} {name}"
        assert come == f"IN_MOVED_TO ROOT/g ROOT/f {cookie} {name}"
        assert cookie != "0"


def test_filters_and_exceptions_choose_the_same(pair: Callable[..., Pair]) -> None:
    """A filter of names, an exception, an expression; and `skipper` and the new folder, which iwatch loses."""
    began = [make("skip"), make("skipper"), make("sub"), make("x.svn")]
    words = ["-r", "-e", "create,close_write", "-t", r"mrc|last|probe", "-x", "{root}/skip", "-X", r"\.svn"]
    both = pair([*words, "-c", "echo %e %f >> {log}", "{root}"], began=began)
    files = ["a.mrc", "a.txt", "skip/b.mrc", "sub/c.mrc", "x.svn/d.mrc", "e.svn.mrc"]
    lines = both.lines(*map(touch, files), touch("skipper/f.mrc"), make("new"), touch("new/g.mrc"))
    assert [line for line in lines["iwatch"] if "CLOSE" in line] == [
        "IN_CLOSE_WRITE ROOT/a.mrc",
        "IN_CLOSE_WRITE ROOT/sub/c.mrc",
    ]
    lost = [line for line in lines["coldchain"] if line not in lines["iwatch"]]
    assert [line for line in lines["coldchain"] if line in lines["iwatch"]] == lines["iwatch"]
    assert {line.split()[1] for line in lost} == {"ROOT/skipper/f.mrc", "ROOT/new/g.mrc"}


def test_what_iwatch_loses_is_there(pair: Callable[..., Pair], tmp_path: Path) -> None:
    """Files in new folders and in moved-in trees, as often as it is tried: everything iwatch has, and the rest."""
    both = pair(["-r", "-e", "close_write", "-c", "echo %e %f >> {log}", "{root}"])

    def move_in(root: Path) -> None:
        (root.parent / "tree/b").mkdir(parents=True)
        (root.parent / "tree/b/f").write_text("x")
        (root.parent / "tree").rename(root / "tree")

    def fast(root: Path) -> None:
        script = 'for i in 0 1 2 3 4 5 6 7 8 9; do mkdir -p "$i/b/c" && echo x > "$i/b/c/f"; done'
        subprocess.run(["sh", "-c", script], cwd=root, check=True)

    both.lines(fast, move_in)
    expected = {f"IN_CLOSE_WRITE ROOT/{i}/b/c/f" for i in range(10)} | {"IN_CLOSE_WRITE ROOT/tree/b/f"}
    both.until(lambda log: expected <= set(log.splitlines()), programs=["coldchain"])
    found = {program: set(both.log(program).splitlines()) for program in PROGRAMS}
    assert expected <= found["coldchain"]
    assert found["iwatch"] <= found["coldchain"]
    assert expected - found["iwatch"]


RULES = """<config charset="utf-8">
  <guard email="watch@example.org" name="Store"/>
  <watchlist>
    <title>Movies &amp; more</title>
    <contactpoint email="ada@example.org" name="Ada"/>
    <path type="recursive" events="{events}" alert="off" syslog="off" exec="echo %e %f &gt;&gt; {log}">{root}</path>
    <path type="exception">{root}/scratch</path>
    <path type="regexception">\\.tmp$</path>
  </watchlist>
  <watchlist>
    <title>One file</title>
    <contactpoint email="bob@example.org"/>
    <path type="single" events="modify" alert="off" exec="echo one %e '%f' &gt;&gt; {log}">{root}/watched</path>
  </watchlist>
</config>
"""
WITH_DOCTYPE = '<?xml version="1.0" ?>\n<!DOCTYPE config SYSTEM "{dtd}" >\n'


@pytest.mark.parametrize("head", [WITH_DOCTYPE, ""])
def test_a_file_is_obeyed_alike_and_read_again_alike(pair: Callable[..., Pair], head: str) -> None:
    """With and without the DOCTYPE: several lists, types, exceptions; SIGHUP brings other events."""
    began = [make("scratch"), make("sub"), touch("watched")]
    first = head + RULES.replace("{events}", "close_write,delete")
    both = pair(["-f", "{file}"], first, began=began)
    actions = [touch("a"), touch("scratch/b"), touch("c.tmp"), touch("sub/d"), lambda root: (root / "a").unlink()]
    lines = both.lines(*actions)
    expected = ["IN_CLOSE_WRITE ROOT/a", "IN_CLOSE_WRITE ROOT/sub/d", "IN_DELETE ROOT/a"]
    assert lines == {"iwatch": expected, "coldchain": expected}
    for program in PROGRAMS:
        both.write_xml(program, head + RULES.replace("{events}", "create,close_write,attrib"))
    both.signal(signal.SIGHUP)
    both.until(lambda log: "IN_ATTRIB" in log, lambda root: (root / "probe").chmod(0o600))
    time.sleep(0.5)
    for place in both.places.values():
        os.truncate(place / "log", 0)
    lines = both.lines(touch("e"), lambda root: (root / "e").chmod(0o600), lambda root: (root / "e").unlink())
    expected = ["IN_CREATE ROOT/e", "IN_CLOSE_WRITE ROOT/e", "IN_ATTRIB ROOT/e"]
    assert lines == {"iwatch": expected, "coldchain": expected}


def test_a_single_file_fires_the_same_commands(pair: Callable[..., Pair]) -> None:
    """A file as TARGET, until it is deleted; one that comes again is lost to iwatch."""
    both = pair(
        ["-e", "modify,close_write,attrib", "-c", "echo %e %f >> {log}", "{root}/probe"], began=[touch("probe")]
    )
    for action, kind in ((touch("probe"), "CLOSE_WRITE"), (lambda root: (root / "probe").chmod(0o600), "ATTRIB")):
        for place in both.places.values():
            action(place / "data")
            touch("other")(place / "data")
        both.until(lambda log, kind=kind: f"IN_{kind}" in log)  # type: ignore[misc]
    assert once(both.log("coldchain").splitlines()) == once(both.log("iwatch").splitlines())
    assert "other" not in both.log("coldchain")


def test_mail_has_the_same_sender_and_receiver(tmp_path: Path) -> None:
    """From the guard to the contact point, by the mail server of this machine; alert is on without the `<?xml` line."""
    controller = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is not installed")
    mails: list[bytes] = []

    class Box:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
            mails.append(envelope.content)  # type: ignore[attr-defined]
            return "250 OK"

    server = controller.Controller(Box(), hostname="127.0.0.1", port=25)
    try:
        server.start()
    except OSError as error:
        pytest.skip(f"port 25, which iwatch writes to, cannot be taken ({error.strerror})")
    both = Pair(tmp_path, ["-f", "{file}"], RULES.replace("{events}", "close_write").replace('alert="off" s', "s"))
    try:
        both.ready()
        end = time.monotonic() + 60
        while len(senders := {(mail["From"], mail["To"]) for mail in map(message_from_bytes, mails)}) < 2:
            assert time.monotonic() < end, mails
            time.sleep(0.1)
    finally:
        both.close()
        server.stop()
    assert senders == {("watch@example.org", "ada@example.org"), ("Store <watch@example.org>", "ada@example.org")}
