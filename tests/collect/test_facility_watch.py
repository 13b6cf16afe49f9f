"""The `[[watch]]` rules of facility.toml: what they say is what is run, told and waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldchain import config
from coldchain.collect.command_queue import MOST_OUTPUT_BYTES, Outcome
from coldchain.collect.facility_watch import FacilityWatch
from coldchain.errors import ConfigError
from coldchain.model.events import Severity
from coldchain.notify.message import Batch
from coldchain.notify.notifier import Receiver
from coldchain.notify.rules import Pace, Rule

RULE = '[[watch]]\nname = "r"\npath = "data"\n'
SAYS = r'exec = ["printf", "%s\\0", "{events}", "{path}", "{relative}", "{folder}", "{name}", "{old_path}", "{rule}"]'


def load(tmp_path: Path, text: str) -> config.Settings:
    """The settings of a facility.toml of that text."""
    (tmp_path / "facility.toml").write_text(text, encoding="utf-8")
    return config.load(tmp_path / "facility.toml")


class Running:
    """Rules that are run, with all that became of their commands."""

    def __init__(self, settings: config.Settings) -> None:
        self.outcomes: list[Outcome] = []
        self.watch = FacilityWatch(settings.watch_rules(), told=self.outcomes.append)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.outcomes
            time.sleep(0.01)

    def words(self) -> list[list[bytes]]:
        """What the commands printed, apart."""
        return [outcome.output.split(b"\0")[:-1] for outcome in self.outcomes]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the rules of a text; they are stopped at the end."""
    made: list[Running] = []

    def start(text: str) -> Running:
        made.append(Running(load(tmp_path, text)))
        made[-1].watch.start()
        made[-1].until(lambda: all(watch._ready.is_set() for watch in made[-1].watch._watches.values()))
        return made[-1]

    yield start
    for running in made:
        running.watch.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RULE, "exec or notify, or both"),
        (RULE + 'exec = ["x", "{pth}"]', "{pth} in '{pth}' stands for nothing"),
        (RULE + 'exec = ["sh", "-c", "cp {path} /x"]', "as code"),
        (RULE + 'exec = "cp {path} /x"', "watch[1].exec"),
        (RULE + 'exec = ["x"]\nevents = ["klose"]', "'klose' is none"),
        (RULE + 'exec = ["x"]\nevents = ["isdir"]', "only qualify"),
        (RULE + 'exec = ["x"]\nfilter = "("', "does not compile"),
        (RULE + 'exec = ["x"]\nexception_patterns = ["("]', "does not compile"),
        (RULE + 'exec = ["x"]\nexceptions = ["/elsewhere"]', "'/elsewhere' is not"),
        (RULE + 'exec = ["x"]\nexceptions = ["."]', "'.' is not"),
        (RULE + 'exec = ["x"]\nnotify = "staff"', "known: none"),
        (RULE + 'exec = ["x"]\njobs = 0', "watch[1].jobs"),
        (RULE + 'exec = ["x"]\nretries = 1', "unknown key watch[1].retries"),
        ('[[watch]]\nname = "a/b"\npath = "x"\nexec = ["x"]', "watch[1].name"),
        ('[[watch]]\nname = "a"\npath = ""\nexec = ["x"]', "watch[1].path"),
        (2 * (RULE + 'exec = ["x"]\n'), "watch names that differ"),
    ],
)
def test_a_mistake_is_an_error_of_the_file(tmp_path: Path, text: str, says: str) -> None:
    """Before anything is watched, with the key and what was expected."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)


def test_the_names_of_a_rule_have_their_values(tmp_path: Path, run: Callable[..., Running]) -> None:
    """Names with newlines, dashes and invalid UTF-8 arrive byte for byte; a path that is not there is waited for."""
    running = run(RULE + SAYS + '\nevents = ["moved_to"]\njobs = 4')
    root = os.fsencode(tmp_path / "data")
    (tmp_path / "data/d").mkdir(parents=True)
    for name in (b"-rf", b"new\nline", b"\xff $(x)"):
        (tmp_path / "data/.new").touch()
        (tmp_path / "data/.new").rename(tmp_path / "data/d" / os.fsdecode(name))
        whole = root + b"/d/" + name
        expected = [b"IN_MOVED_TO", whole, b"d/" + name, root + b"/d", b"./" * (name[:1] == b"-") + name]
        running.until(lambda expected=expected: any(words[:5] == expected for words in running.words()))  # type: ignore[misc]
    assert all(words[6] == b"r" for words in running.words())
    running.until(lambda: any(words[5] == root + b"/.new" for words in running.words()))


def test_a_rule_may_be_about_one_file(tmp_path: Path, run: Callable[..., Running]) -> None:
    """`{relative}` is then its name; the file may be replaced."""
    running = run('[[watch]]\nname = "r"\npath = "one"\nexec = ["echo", "-n", "{relative} {folder}"]\n')
    (tmp_path / "one").write_text("x")
    running.until(lambda: len(running.outcomes) == 1)
    (tmp_path / "other").write_text("y")
    (tmp_path / "other").rename(tmp_path / "one")
    running.until(lambda: len(running.outcomes) == 2)
    assert {outcome.output.decode() for outcome in running.outcomes} == {f"one {tmp_path}"}


def test_exceptions_and_filters_hold_for_their_rule_alone(tmp_path: Path, run: Callable[..., Running]) -> None:
    """Another rule of the same folder sees what the first one leaves out."""
    (tmp_path / "data/scratch").mkdir(parents=True)
    first = RULE + 'exec = ["echo", "-n", "1 {relative}"]\nexceptions = ["scratch"]\nexception_patterns = ["tmp$"]\n'
    second = '[[watch]]\nname = "s"\npath = "data"\nexec = ["echo", "-n", "2 {relative}"]\nfilter = "x"\n'
    running = run(first + second)
    for name in ("scratch/x", "a.tmp", "b", "last.x"):
        (tmp_path / "data" / name).write_text("x")
    expected = {b"1 b", b"1 last.x", b"2 scratch/x", b"2 last.x"}
    running.until(lambda: expected <= {outcome.output for outcome in running.outcomes})
    running.until(running.watch.idle)
    assert {outcome.output for outcome in running.outcomes} == expected


def test_bad_commands_hold_up_no_other_rule(tmp_path: Path, run: Callable[..., Running]) -> None:
    """One is missing, one hangs, one prints a gigabyte, one's pattern backtracks for ever: each is stated."""
    (tmp_path / "data").mkdir()
    rules = {
        "missing": "exec = ['/nowhere/to/be/found', '{path}']\nattempts = 2",
        "hangs": "exec = ['sleep', '1000']\ntimeout_seconds = 0.3\nattempts = 1",
        "endless": "exec = ['yes']\ntimeout_seconds = 1\nattempts = 1",
        "backtracks": "exec = ['true']\nfilter = '(x|xx)+y'",
        "good": "exec = ['echo', 'good']",
    }
    running = run("".join(f'[[watch]]\nname = "{name}"\npath = "data"\n{rule}\n' for name, rule in rules.items()))
    (tmp_path / "data" / ("x" * 200)).write_text("x")
    running.until(lambda: len(running.outcomes) >= 6)
    by_line = {outcome.order.line.split()[0]: outcome for outcome in running.outcomes}
    assert by_line["/nowhere/to/be/found"].attempt == 2
    assert "No such file" in by_line["/nowhere/to/be/found"].trouble
    assert "had not ended after 0.3 s" in by_line["sleep"].trouble
    endless_one = by_line["yes"]
    assert len(endless_one.output) == MOST_OUTPUT_BYTES < endless_one.output_bytes
    assert by_line["true"].is_good  # what a pattern leaves open is not passed over
    assert by_line["echo"].output == b"good\n"
    assert running.watch.alive()


def test_initial_takes_what_is_there_for_new(tmp_path: Path, run: Callable[..., Running]) -> None:
    """At each start again: what was lost with a process that was killed is run by the next one."""
    (tmp_path / "data/d").mkdir(parents=True)
    (tmp_path / "data/d/f").write_text("x")
    text = RULE + 'exec = ["echo", "-n", "{relative}"]\ninitial = true\nsettle_seconds = 0\n'
    for _ in range(2):
        running = run(text)
        running.until(lambda running=running: bool(running.outcomes))  # type: ignore[misc]
        assert [outcome.output for outcome in running.outcomes] == [b"d/f"]


def test_rules_change_without_a_gap(tmp_path: Path, run: Callable[..., Running]) -> None:
    """What stays stays as it is; what changed begins before its old form ends; what is gone ends."""
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    gone = '[[watch]]\nname = "gone"\npath = "other"\nexec = ["echo", "-n", "gone"]\n'
    running = run(RULE + 'exec = ["echo", "-n", "old {name}"]\n' + gone)
    (tmp_path / "data/1").write_text("x")
    running.until(lambda: len(running.outcomes) == 1)
    changed = load(tmp_path, RULE + 'exec = ["echo", "-n", "new {name}"]\n')
    running.watch.change(changed.watch_rules())
    kept = running.watch._watches["r"]
    running.watch.change(changed.watch_rules())
    assert running.watch._watches == {"r": kept}
    (tmp_path / "data/2").write_text("x")
    (tmp_path / "other/3").write_text("x")
    running.until(lambda: len(running.outcomes) == 2)
    assert [outcome.output for outcome in running.outcomes] == [b"old 1", b"new 2"]


class Ear:
    """A channel that remembers."""

    bundles = True

    def __init__(self) -> None:
        self.heard: dict[str, tuple[Severity, str]] = {}

    def send(self, batch: Batch) -> list[str]:
        """Take it."""
        self.heard |= {n.event.kind: (n.event.severity, n.event.message) for n in batch.notices}
        return []


def test_a_receiver_is_told_of_events_and_failures(tmp_path: Path) -> None:
    """Of each event, and of a command that fails for good, whatever severity the receiver asks for otherwise."""
    (tmp_path / "data").mkdir()
    ear = Ear()
    receiver = Receiver(Rule("staff", minimum=Severity.ERROR), Pace(digest_seconds=0), ear)
    section = load(tmp_path, RULE + 'exec = ["false"]\nattempts = 1').watch[0]
    watch = FacilityWatch([section.as_rule(tmp_path, receiver)], told=lambda _: None)
    watch.start()
    try:
        end = time.monotonic() + 60
        while len(ear.heard) < 2:
            (tmp_path / "data/f").write_text("x")
            time.sleep(0.1)
            assert time.monotonic() < end, ear.heard
    finally:
        watch.stop()
    assert ear.heard["watch.close_write"] == (Severity.INFO, f"IN_CLOSE_WRITE {tmp_path}/data/f")
    severity, message = ear.heard["watch.failed"]
    assert severity is Severity.ERROR
    assert "exit status 1" in message
