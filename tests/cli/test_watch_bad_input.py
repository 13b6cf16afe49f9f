"""Whatever is wrong with a file of rules, with commands, names and folders: it is said, and spoils nothing else."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldchain.collect.name_pattern import MATCH_SECONDS, MOST_UNDECIDED, NamePattern
from tests.cli.test_watch_command import Watch, root, watch  # noqa: F401  # fixtures

BAD = """<?xml version="1.0" ?>
<!DOCTYPE config SYSTEM "http://127.0.0.1:9/iwatch.dtd" >
<config charset="klingon" colour="red">
  <guard email="no address"/>
  <watchlist>
    <title>Everything that can be wrong</title>
    <contactpoint email="nobody at all"/>
    <path type="recursive" events="close_write" exec="echo good %e &quot;%f&quot; &gt;&gt; {log}">{root}/</path>
    <path type="recursive" events="close_write" exec="{nowhere}/program %f">{root}/missing</path>
    <path type="recursive" events="close_write" exec="echo hung &gt;&gt; {log}; sleep 1000; true %f">{root}/hangs</path>
    <path type="recursive" events="close_write" exec="yes %f">{root}/endless</path>
    <path type="recursive" events="close_write" filter="(x|xx)+y" exec="echo slow &gt;&gt; {log}">{root}/slow</path>
    <path type="recursive" alert="on" events="close_write">{root}/mail</path>
    <path type="single" events="close_write" exec="echo later &gt;&gt; {log}">{nowhere}/later</path>
    <path type="regexception">([</path>
    <path type="recursive" filter="*">{root}/unused</path>
    <path type="recursive" exec="cat &lt;&lt;E %f">{root}/unused</path>
    <path kind="recursive" type="recursive" events="klose,close_write">{root}/unused</path>
    <path type="sideways">{root}</path>
    <path/>
  </watchlist>
  <watchtower/>
</config>
"""


def test_a_file_full_of_mistakes_serves_what_is_right(
    root: Path,  # noqa: F811
    tmp_path: Path,
    watch: Callable[..., Watch],  # noqa: F811
) -> None:
    """Each fault is said with its line; the good path's commands are all run beside those that hang and never end."""
    for name in ("missing", "hangs", "endless", "slow", "mail", "loop"):
        (root / name).mkdir()
    (root / "loop/back").symlink_to(root)
    log, rules, nowhere = tmp_path / "log", tmp_path / "bad.xml", tmp_path / "nowhere"
    rules.write_text(BAD.format(root=root, log=log, nowhere=nowhere))
    running = watch("-f", rules, "--jobs", 4, "--timeout", 2, "--smtp", "127.0.0.1:9")
    running.ready(root, log)
    names = [b"new\nline", b"\xff\xfe", b"-rf", b"$(touch broken)", b"a" * 255]
    for name in names:
        (root / "loop" / os.fsdecode(name)).write_text("x")
    for name in ("missing/f", "hangs/f", "endless/f", "mail/f", "slow/" + "x" * 200):
        (root / name).write_text("x")
    (nowhere / "later").mkdir(parents=True)
    expected = [b"good IN_CLOSE_WRITE " + os.fsencode(root) + b"/loop/" + name + b"\n" for name in names]
    running.until(lambda: all(line in log.read_bytes() for line in [*expected, b"hung\n", b"slow\n"]))
    said = running.err.read_text
    running.until(lambda: "had not ended after 2 s" in said() and "which are not shown" in said())
    running.until(lambda: [(nowhere / "later/f").write_text("x")] and b"later\n" in log.read_bytes())
    rules.write_text('<!DOCTYPE c [<!ENTITY a "b"><!ENTITY b "&a;&a;">]><config>&b;</config>')
    running.process.send_signal(signal.SIGHUP)
    running.until(lambda: "declares entities" in said())
    (root / "last").write_text("x")
    running.until(lambda: f"good IN_CLOSE_WRITE {root}/last\n".encode() in log.read_bytes())
    assert running.stop() == 0
    for words in (
        "line 3: <config> has no attribute 'colour'",
        "line 15: the regular expression '([' does not compile",
        "line 16: the regular expression '*' does not compile",
        "line 17: the command",
        "line 18: <path> has no attribute 'kind'",
        "line 18: no event is called 'klose'",
        "line 19: <path type='sideways'> is unknown",
        "line 20: a <path> names no path",
        "line 22: <watchtower> is unknown here",
        "'nobody at all' is no mail address",
        f"{nowhere}/later: it cannot be watched",
        "'(x|xx)+y' is not decided after",
        f"{shlex.quote(str(nowhere))}/program",
        "exit status 127",
        "The rules stay as they were",
    ):
        assert words in said(), words
    assert b"/back/" not in log.read_bytes()
    assert not Path("broken").exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A real file system, mounted on a folder, and the command that mounts it again."""
    backing, target = tmp_path / "backing", tmp_path / "target"
    backing.mkdir()
    target.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "none", str(backing)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted: {made.stderr.decode(errors='replace').strip()}")
    mount = ["mount", "--bind", str(backing), str(target)]
    subprocess.run(mount, check=True)
    yield target, mount
    for folder in (target, backing):
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@pytest.mark.root
def test_a_target_that_is_unmounted_and_comes_back_goes_on(
    mounted: tuple[Path, list[str]],
    tmp_path: Path,
    watch: Callable[..., Watch],  # noqa: F811
) -> None:
    """Nothing is run for what was there before; what came meanwhile and what comes after is run; so twice."""
    target, mount = mounted
    log = tmp_path / "log"
    running = watch("-r", "-e", "close_write,delete", "-c", f"echo %e %f >> {log}", target)
    running.ready(target, log)
    for number in range(2):
        (target / f"before{number}").write_text("x")
        running.until(lambda number=number: f"before{number}\n" in log.read_text())  # type: ignore[misc]
        subprocess.run(["umount", str(target)], check=True)
        (tmp_path / f"backing/meanwhile{number}").write_text("x")
        subprocess.run(mount, check=True)
        running.until(lambda number=number: f"meanwhile{number}\n" in log.read_text())  # type: ignore[misc]
        (target / f"after{number}").write_text("x")
        running.until(lambda number=number: f"after{number}\n" in log.read_text())  # type: ignore[misc]
    assert running.stop() == 0
    lines = [line for line in log.read_text().splitlines() if "probe" not in line]
    assert len(lines) == len(set(lines)) == 6
    assert not any(line.startswith("IN_DELETE") for line in lines)


def test_an_endless_pattern_is_bounded_over_all_names() -> None:
    """After some names that take too long, others of their length cost nothing; shorter ones are still decided."""
    pattern = NamePattern("(x|xx)+y")
    pattern._undecided = MOST_UNDECIDED - 1
    pattern._shortest = 300
    assert pattern.found_in("x" * 200) is None
    assert pattern._shortest == 200
    assert all(pattern.found_in("y" * length) is None for length in range(200, 2000))
    assert pattern.found_in("xxy") is True
    assert pattern.found_in("abc") is False
    assert MATCH_SECONDS * MOST_UNDECIDED <= 2
