"""Syslog to real sockets: every transport, hostile texts, and receivers that are not there."""

from __future__ import annotations

import queue
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import DeliveryError
from coldchain.model.events import Severity
from coldchain.notify.line import Patience
from coldchain.notify.syslog import MOST_BYTES, Address, Syslog
from tests.notify.notify_givens import HOSTILE, WAIT_SECONDS, answering, batch, dead_port, notice, read_all

PATIENCE = Patience(answer_seconds=10, total_seconds=20)
RFC5424 = re.compile(rb"<(\d+)>1 (\S+) (\S+) coldchain (\d+) (\S{1,32}) - (.*)")


def udp_receiver() -> socket.socket:
    """A receiver of datagrams on 127.0.0.1."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.settimeout(10)
    receiver.bind(("127.0.0.1", 0))
    return receiver


def test_a_line_by_udp_is_rfc_5424() -> None:
    """Priority, version, time in UTC, host, application, process, kind and text, in that order; ASCII without a BOM."""
    with udp_receiver() as receiver:
        address = Address("udp", "127.0.0.1", receiver.getsockname()[1])
        Syslog(address, "local3").send(batch(notice(severity=Severity.ERROR)))
        parts = RFC5424.fullmatch(receiver.recv(4096))
    assert parts is not None
    priority, at, host, _, kind, text = parts.groups()
    assert int(priority) == 19 * 8 + 3
    assert at == b"2026-02-03T04:05:06.789000Z"
    assert host.decode() == socket.gethostname()
    assert (kind, text) == (b"alert.raised", b"krios / visit: the focus has changed")


@given(text=st.text(st.characters(), max_size=300) | st.just(HOSTILE) | st.just("ü" * 9000), kind=st.text(max_size=60))
def test_no_text_can_forge_a_line(text: str, kind: str) -> None:
    """Whatever an event says, its line is one line of RFC 5424, not longer than receivers take, in whole characters."""
    line = Syslog(Address("udp", "x", 1))._line(notice(message=text, kind=kind))
    assert len(line) <= MOST_BYTES
    parts = RFC5424.fullmatch(line)
    assert parts is not None
    said = parts[6].decode("utf-8")
    assert said.startswith("\ufeff") is (not parts[6].isascii())
    assert said.removeprefix("\ufeff").isprintable()


def test_by_tcp_octets_are_counted() -> None:
    """Each line is preceded by its length in bytes (RFC 6587, 3.4.1), and one connection carries a batch."""
    received: queue.Queue[bytes] = queue.Queue()
    with answering(lambda line: received.put(read_all(line))) as port:
        two = batch(notice(1, message="größer"), notice(2, message=HOSTILE), lost={"file.damaged": 3})
        Syslog(Address("tcp", "127.0.0.1", port), patience=PATIENCE).send(two)
        stream = received.get(timeout=20)
    lines = []
    while stream:
        length, _, rest = stream.partition(b" ")
        lines.append(rest[: int(length)])
        stream = rest[int(length) :]
    assert len(lines) == 3
    assert all(RFC5424.fullmatch(line) for line in lines)
    assert b"not told before, and never will be: 3 (file.damaged 3)" in lines[2]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_local_socket_takes_it_as_datagrams_or_as_a_stream(tmp_path: Path, kind: socket.SocketKind) -> None:
    """The kind of the socket is found out; both formats are one line."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, kind) as receiver:
        receiver.settimeout(10)
        receiver.bind(path)
        if kind is socket.SOCK_STREAM:
            receiver.listen()
        Syslog(Address("unix", path), format="rfc5424").send(batch())
        Syslog(Address("unix", path)).send(batch())
        got = []
        for _ in range(2):
            if kind is socket.SOCK_STREAM:
                line, _ = receiver.accept()
                with line:
                    got.append(read_all(line).removesuffix(b"\n"))
            else:
                got.append(receiver.recv(4096))
    assert RFC5424.fullmatch(got[0])
    assert re.fullmatch(rb"<28>coldchain\[\d+\]: alert\.raised: krios / visit: the focus has changed", got[1])


RSYSLOG = """
global(workDirectory="{folder}")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imuxsock" Socket="{folder}/log")
template(name="fields" type="string" string="%syslogfacility-text%.%syslogseverity-text% %app-name% %msgid%%msg%\\n")
action(type="omfile" file="{folder}/out" template="fields")
"""


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A real rsyslogd, its folder (its local socket is `log` there, its output `out`), and its TCP port."""
    if shutil.which("rsyslogd") is None:
        pytest.skip("rsyslogd is not here: it is in the package rsyslog")
    port = dead_port()
    (tmp_path / "conf").write_text(RSYSLOG.format(folder=tmp_path, port=port))
    command = ["rsyslogd", "-n", "-f", str(tmp_path / "conf"), "-i", str(tmp_path / "pid")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            _until(lambda: (tmp_path / "log").exists() and _listens(port))
            yield tmp_path, port
        finally:
            daemon.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rsyslogd_understands_every_field(rsyslog: tuple[Path, int]) -> None:
    """By TCP and by its local socket a real daemon reads facility, severity, application, kind and text as meant."""
    folder, port = rsyslog
    both = batch(notice(1, message="größer"), notice(2, message=HOSTILE, severity=Severity.ERROR))
    Syslog(Address("tcp", "127.0.0.1", port), "local3", patience=PATIENCE).send(both)
    Syslog(Address("unix", str(folder / "log")), "local3", patience=PATIENCE).send(both)
    out = folder / "out"
    _until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 4)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert "local3.warning coldchain alert.raised\ufeffkrios / visit: größer" in lines
    assert "local3.warning coldchain - alert.raised: krios / visit: größer" in lines
    assert sum(line.startswith("local3.err coldchain ") for line in lines) == 2


def test_nobody_there_is_a_stated_failure(tmp_path: Path) -> None:
    """A missing socket, a refused connection, and UDP where the machine itself says that nobody listens."""
    for address in (Address("unix", str(tmp_path / "log")), Address("tcp", "127.0.0.1", dead_port())):
        with pytest.raises(DeliveryError) as caught:
            Syslog(address, patience=PATIENCE).send(batch())
        assert caught.value.retry
    with pytest.raises(DeliveryError, match="refused"):
        Syslog(Address("udp", "127.0.0.1", dead_port())).send(batch())
    with pytest.raises(DeliveryError):
        Syslog(Address("udp", "x" * 80, 514)).send(batch())


def test_a_receiver_that_takes_nothing_in_is_given_up_in_time() -> None:
    """TCP takes for a receiver that hangs; only when it has closed in return is the line told."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = Address("tcp", "127.0.0.1", deaf.getsockname()[1])
        with pytest.raises(DeliveryError, match="in time"):
            Syslog(address, patience=Patience(answer_seconds=0.2, total_seconds=10)).send(batch())
