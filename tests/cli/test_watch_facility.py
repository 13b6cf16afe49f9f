"""`[[watch]]` rules as they are run: by `coldchain watch --config`, and by `coldchain run` with everything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.answer import Typed
from tests.cli.test_watch_command import Watch, root, watch  # noqa: F401  # fixtures
from tests.facility import make_facility

RULE = """
[[watch]]
name = "second-copy"
path = "{path}"
exec = ["sh", "-c", 'printf "%s {word}\\n" "$1" >> "$2"', "sh", "{{path}}", "{log}"]
"""


def test_rules_are_run_without_the_rest_of_the_facility(
    tmp_path: Path,
    watch: Callable[..., Watch],  # noqa: F811
) -> None:
    """Neither instrument nor store is needed; SIGHUP brings other rules, a bad file none; a second one is refused."""
    data, log, file = tmp_path / "data", tmp_path / "log", tmp_path / "facility.toml"
    data.mkdir()
    file.write_text(RULE.format(path=data, word="first", log=log))
    running = watch("--config", file, "-v", "-p", tmp_path / "pid")
    running.ready(data, log)
    assert int((tmp_path / "pid").read_text()) == running.process.pid
    second = watch("--config", file)
    assert second.process.wait(60) == 1
    assert "is at work on this facility" in second.err.read_text()
    file.write_text("[[watch]]")
    running.process.send_signal(signal.SIGHUP)
    running.until(lambda: "The rules stay as they were" in running.err.read_text())
    file.write_text(RULE.format(path=data, word="second", log=log))
    running.process.send_signal(signal.SIGHUP)
    running.until(lambda: "was read again: 1 rule(s)" in running.err.read_text())
    (data / "f").touch()
    running.until(lambda: f"{data}/f second\n" in log.read_text())
    assert running.stop() == 0
    assert f"{data}/f first\n" not in log.read_text()
    assert f"] IN_CLOSE_WRITE {data}/f\n" in running.out.read_text()
    assert not (tmp_path / "pid").exists()


def test_rules_are_run_in_the_background(tmp_path: Path) -> None:
    """`-d` returns at once, and holds on to the facility; the process in the pid file watches until it is ended."""
    data, log, file, pid_file = tmp_path / "data", tmp_path / "log", tmp_path / "facility.toml", tmp_path / "pid"
    data.mkdir()
    file.write_text(RULE.format(path="data", word="w", log=log))
    words = [sys.executable, "-m", "coldchain", "watch", "--config", "facility.toml"]
    subprocess.run([*words, "-d", "-p", "pid"], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    try:
        second = subprocess.run(words, cwd=tmp_path, timeout=60, capture_output=True, check=False)
        assert b"is at work on this facility" in second.stderr
        end = time.monotonic() + 60
        while not log.exists():
            (data / "f").write_text("x")
            time.sleep(0.05)
            assert time.monotonic() < end
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    while pid_file.exists():
        time.sleep(0.05)
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("words", "text", "status", "says"),
    [
        (["-r"], RULE, 2, "Write the rest into"),
        (["/data"], RULE, 2, "Write the rest into"),
        (["-f", "x.xml"], RULE, 2, "Write the rest into"),
        (["--jobs", "2"], RULE, 2, "Write the rest into"),
        ([], "", 1, "Add a [[watch]]"),
        ([], '[[watch]]\nname = "a"\npath = "b"\nexec = ["{path}"]', 1, "would choose what is run"),
    ],
)
def test_what_cannot_be_is_said(
    typed: Typed, tmp_path: Path, words: list[str], text: str, status: int, says: str
) -> None:
    """Options beside the file, and files without a rule that can be used."""
    (tmp_path / "facility.toml").write_text(text.format(path="p", word="w", log="l") if text is RULE else text)
    answer = typed("watch", "--config", tmp_path / "facility.toml", *words)
    assert (answer.status, says in answer.err) == (status, True), answer.err


def test_the_service_runs_them_too(tmp_path: Path) -> None:
    """Beside its instruments; a folder that is not there is waited for, and a command that fails is in the log."""
    facility = make_facility(tmp_path / "facility")
    log = tmp_path / "log"
    with facility.config_file.open("a") as file:
        file.write(RULE.format(path="later", word="w", log=log))
        file.write('[[watch]]\nname = "bad"\npath = "later"\nexec = ["false"]\nattempts = 1\n')
    later = facility.root / "later"

    def is_done() -> bool:
        later.mkdir(exist_ok=True)
        (later / "f").write_text("x")
        return log.exists() and f"{later}/f w\n" in log.read_text() and "exit status 1" in facility.log()

    with facility.running():
        facility.wait(lambda _: is_done())
