"""`coldchain watch` as a process: its commands, its file, its signals, its mail and its lines of syslog."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.answer import Typed

Process = subprocess.Popen[bytes]


class Watch:
    """A `coldchain watch` that runs."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            argv = [sys.executable, "-m", "coldchain", "watch", *map(str, words)]
            self.process = subprocess.Popen(argv, stdout=out, stderr=err)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.err.read_text() + self.out.read_text()
            time.sleep(0.02)

    def ready(self, root: Path, log: Path) -> None:
        """Until a file that is touched is noticed in the log of its commands."""
        number = 0
        while not (log.exists() and b"probe" in log.read_bytes()):
            (root / f"probe{(number := number + 1)}").touch()
            time.sleep(0.05)
            assert number < 600, self.err.read_text()

    def stop(self) -> int:
        """End it; its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """Start `coldchain watch`; it is ended at the end."""
    made: list[Watch] = []

    def start(*words: object) -> Watch:
        folder = tmp_path / f"watch{len(made)}"
        folder.mkdir()
        made.append(Watch(folder, *words))
        return made[-1]

    yield start
    for running in made:
        running.process.kill()
        running.process.wait()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What is watched."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_a_command_is_run_for_each_file_whatever_its_name(
    root: Path, tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    """Names arrive byte for byte, in new folders too; each event is a line with the time; SIGTERM ends in order."""
    log = tmp_path / "log"
    command = f"printf '%s\\0' %e \"%f\" >> '{log}'"
    running = watch("-r", "-e", "close_write", "-x", root / "skip", "-X", r"\.tmp$", "-c", command, root)
    running.ready(root, log)
    names = [b"a b", b"$(touch broken)", b"\xff'\"`x`", b"new\nline", b"-rf"]
    (root / "d/e").mkdir(parents=True)
    (root / "skip").mkdir()
    for name in names:
        for folder in ("d/e", "skip"):
            with open(os.fsencode(root / folder) + b"/" + name, "w"):  # noqa: PTH123
                pass
    (root / "x.tmp").touch()
    expected = {os.fsencode(root) + b"/d/e/" + name for name in names}
    running.until(lambda: expected <= set(log.read_bytes().split(b"\0")))
    assert running.stop() == 0
    words = log.read_bytes().split(b"\0")[:-1]
    assert set(words[::2]) == {b"IN_CLOSE_WRITE"}
    assert {path for path in words[1::2] if b"probe" not in path} == expected
    assert f"] IN_CLOSE_WRITE {root}/d/e/new\\nline\n" in running.out.read_text()
    assert "* Command: printf" in running.err.read_text()


def test_output_failures_and_retries_are_told(root: Path, watch: Callable[..., Watch]) -> None:
    """What a command prints is passed on; a status that is not 0 is said, and it is tried again."""
    (root / "f").touch()
    running = watch("--initial", "--settle", 0, "-e", "create", "--retries", 1, "-c", "echo seen %f; exit 3", root)
    running.until(lambda: running.err.read_text().count("exit status 3") == 2)
    assert running.stop() == 0
    assert running.out.read_text().count(f"seen {root}/f\n") == 2
    assert "it is tried again in 1 s" in running.err.read_text()


XML = """<?xml version="1.0"?>
<config><guard email="watch@example.org" name="Store"/><watchlist><title>Movies</title>
<contactpoint email="ada@example.org"/>
<path type="recursive" events="{events}" exec="echo %e %f >> {log}" alert="on" syslog="on">{root}</path>
<path type="recursive" events="klose">/nowhere</path></watchlist></config>
"""


def test_a_file_is_served_and_read_again(root: Path, tmp_path: Path, watch: Callable[..., Watch]) -> None:
    """Faults are said with their lines; mail and syslog are told; SIGHUP brings other rules, a bad file none."""
    controller = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is not installed")
    mails: list[bytes] = []

    class Box:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
            mails.append(envelope.content)  # type: ignore[attr-defined]
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = controller.Controller(Box(), hostname="127.0.0.1", port=port)
    server.start()
    rules, log = tmp_path / "iwatch.xml", tmp_path / "log"
    rules.write_text(XML.format(events="close_write", log=log, root=root))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
            syslog.bind(str(tmp_path / "dev-log"))
            syslog.settimeout(60)
            running = watch("-f", rules, "--smtp", f"127.0.0.1:{port}", "--syslog-to", tmp_path / "dev-log")
            running.ready(root, log)
            line = syslog.recv(4096).decode()
            assert "watch.close_write: Movies: IN_CLOSE_WRITE" in line
            rules.write_text("<config>")
            running.process.send_signal(signal.SIGHUP)
            running.until(lambda: "The rules stay as they were" in running.err.read_text())
            rules.write_text(XML.format(events="delete", log=log, root=root))
            running.process.send_signal(signal.SIGHUP)
            running.until(lambda: "was read again" in running.err.read_text())
            (root / "probe1").unlink()
            running.until(lambda: f"IN_DELETE {root}/probe1\n" in log.read_text())
            assert running.stop() == 0
    finally:
        server.stop()
    assert "line 5: no event is called 'klose'" in running.err.read_text()
    assert running.out.read_text() == ""
    assert b"From: Store <watch@example.org>" in mails[0]
    assert b"To: ada@example.org" in mails[0]
    assert f"IN_DELETE {root}/probe1".encode() in b"".join(mails).replace(b"=\r\n", b"")


def test_a_daemon_leaves_its_process_id(root: Path, tmp_path: Path) -> None:
    """`-d` returns at once; the process in the pid file watches, keeps a second one from starting, and takes the file
    with it when it ends."""
    rules, log, pid_file = tmp_path / "iwatch.xml", tmp_path / "log", tmp_path / "pid"
    rules.write_text(XML.format(events="close_write", log=log, root=root).replace('alert="on" syslog="on"', ""))
    words = [sys.executable, "-m", "coldchain", "watch", "-d", "-f", rules, "-p", pid_file]
    subprocess.run([*words, "--syslog-to", tmp_path / "nowhere"], check=True, timeout=60, capture_output=True)
    end = time.monotonic() + 60
    number = 0
    while not log.exists():
        (root / f"probe{(number := number + 1)}").touch()
        time.sleep(0.05)
        assert time.monotonic() < end
    second = subprocess.run(words, check=False, timeout=60, capture_output=True, text=True)
    assert second.returncode
    assert "another watcher is at work" in second.stderr
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    while pid_file.exists():
        time.sleep(0.05)
        assert time.monotonic() < end


def test_what_only_iwatchs_manual_or_its_source_knows_is_understood(
    root: Path, tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    """`-w TARGET`, `-s off`, options in one word, and entities, for iwatch puts its options into a text of XML."""
    log = tmp_path / "log"
    words = ["-rve", "close_write", "-t", "&lt;?probe", "-c", f"echo &quot;%f&quot; &gt;&gt; {log} &amp;&amp; true"]
    by_option = watch(*words, "-w", root)
    by_option.ready(root, log)
    assert by_option.stop() == 0
    log.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "dev-log"))
        syslog.setblocking(False)
        by_switch = watch("-s", "off", *words, "--syslog-to", tmp_path / "dev-log", root)
        by_switch.ready(root, log)
        assert by_switch.stop() == 0
        with pytest.raises(BlockingIOError):
            syslog.recv(4096)


def test_help_and_version_are_asked_for_as_of_iwatch(typed: Typed) -> None:
    """-h, --help and --version, status 0."""
    for word in ("-h", "--help"):
        assert "--recursive" in typed("watch", word).out
    assert typed("watch", "--version").out.startswith("coldchain ")


def test_relative_paths_stay_where_they_were(root: Path, tmp_path: Path) -> None:
    """In the background the folder is another; paths of a file that is read again are still those of before."""
    rules, log = tmp_path / "iwatch.xml", tmp_path / "log"
    plain = XML.replace(' alert="on" syslog="on"', "")
    rules.write_text(plain.format(events="close_write", log=log, root="data"))
    words = [sys.executable, "-m", "coldchain", "watch", "-d", "-f", "iwatch.xml", "-p", "pid"]
    subprocess.run(words, check=True, timeout=60, capture_output=True, cwd=tmp_path)
    process = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 60
    try:
        for events in ("close_write", "close_write,attrib"):
            rules.write_text(plain.format(events=events, log=log, root="data"))
            os.kill(process, signal.SIGHUP)
            kind = f"IN_{events.rpartition(',')[2].upper()}"
            while not (log.exists() and f"{kind} {root}/f" in log.read_text()):
                (root / "f").write_text("x")
                (root / "f").chmod(0o600)
                time.sleep(0.05)
                assert time.monotonic() < end
    finally:
        os.kill(process, signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-d", "-r", "/data"], "Use one kind"),
        (["-r"], "0 targets"),
        (["/a", "/b"], "2 targets"),
        (["-e", "klose", "/data"], "'klose'"),
        (["-e", "oneshot", "/data"], "only qualify"),
        (["-t", "(", "/data"], "does not compile"),
        (["-X", "(", "/data"], "does not compile"),
        (["-c", "cat <<E %f", "/data"], "here-document"),
        (["--syslog-to", "log", "/data"], "udp://HOST:PORT"),
        (["--smtp", "host:x", "/data"], "HOST:PORT"),
    ],
)
def test_what_cannot_be_is_wrong_usage(typed: Typed, words: list[str], says: str) -> None:
    """Status 2, with what was wrong, before anything is watched."""
    answer = typed("watch", *words)
    assert answer.status == 2
    assert says in answer.err


def test_a_file_that_is_none_is_a_stated_failure(typed: Typed, tmp_path: Path) -> None:
    """Missing, malformed, or without a path that can be used: status 1."""
    assert typed("watch", "-f", tmp_path / "none.xml").status == 1
    (tmp_path / "w.xml").write_text("<config><watchlist>\n<path type='x'>/a</path></watchlist></config>")
    answer = typed("watch", "-f", tmp_path / "w.xml")
    assert answer.status == 1
    assert "line 2" in answer.err
    assert "no path in it can be watched" in answer.err
