"""Syslog to real sockets: every transport, hostile texts, and receivers that are not there."""

from __future__ import annotations

import queue
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import DeliveryError
from coldchain.model.events import Severity
from coldchain.notify.line import Patience
from coldchain.notify.syslog import MOST_BYTES, Address, Syslog
from tests.notify.notify_givens import HOSTILE, WAIT_SECONDS, Identity, answering, batch, dead_port, notice, read_all

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
global(workDirectory="{folder}"{tls})
module(load="imtcp"{tcp})
module(load="imuxsock" SysSock.Use="off")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imuxsock" Socket="{folder}/log")
template(name="fields" type="string" string="%syslogfacility-text%.%syslogseverity-text% %app-name% %msgid%%msg%\\n")
action(type="omfile" file="{folder}/out" template="fields")
"""


TLS = """ DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile="{certificate}"
 DefaultNetstreamDriverCertFile="{certificate}" DefaultNetstreamDriverKeyFile="{key}"
"""
TLS_INPUT = ' StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
RSYSLOG_FOLDERS = (*Path("/usr/lib").glob("*/rsyslog"), "/usr/lib/rsyslog", "/usr/lib64/rsyslog")


@contextmanager
def rsyslogd(folder: Path, tls: str = "") -> Iterator[int]:
    """A real rsyslogd; its TCP port. In the folder its local socket is `log`, its output `out`."""
    if shutil.which("rsyslogd") is None:
        pytest.skip("rsyslogd is not here: it is in the package rsyslog")
    port = dead_port()
    (folder / "conf").write_text(RSYSLOG.format(folder=folder, port=port, tls=tls, tcp=TLS_INPUT if tls else ""))
    command = ["rsyslogd", "-n", "-f", str(folder / "conf"), "-i", str(folder / "pid")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            _until(lambda: (folder / "log").exists() and _listens(port))
            yield port
        finally:
            daemon.terminate()


def written(folder: Path, count: int) -> list[str]:
    """The lines that rsyslogd has written, when there are so many."""
    out = folder / "out"
    _until(lambda: out.exists() and out.read_bytes().count(b"\n") >= count)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    return lines


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rsyslogd_understands_every_field(tmp_path: Path) -> None:
    """By TCP and by its local socket a real daemon reads facility, severity, application, kind and text as meant."""
    both = batch(notice(1, message="größer"), notice(2, message=HOSTILE, severity=Severity.ERROR))
    with rsyslogd(tmp_path) as port:
        Syslog(Address("tcp", "127.0.0.1", port), "local3", patience=PATIENCE).send(both)
        Syslog(Address("unix", str(tmp_path / "log")), "local3", patience=PATIENCE).send(both)
        lines = written(tmp_path, 4)
    assert "local3.warning coldchain alert.raised\ufeffkrios / visit: größer" in lines
    assert "local3.warning coldchain - alert.raised: krios / visit: größer" in lines
    assert sum(line.startswith("local3.err coldchain ") for line in lines) == 2


def by_tls(port: int, ca_file: Path | None, host: str = "localhost") -> Syslog:
    """Lines to that port of this machine."""
    return Syslog(Address("tls", host, port), "local3", ca_file=ca_file, patience=PATIENCE)


def test_rsyslogd_understands_what_comes_by_tls(identity: Identity, tmp_path: Path) -> None:
    """A real daemon with its own certificate reads a batch as meant, octets counted (RFC 5425)."""
    if not any(Path(folder, "lmnsd_ossl.so").exists() for folder in RSYSLOG_FOLDERS):
        pytest.skip("rsyslogd knows no TLS here: that is in the package rsyslog-openssl")
    secured = TLS.format(certificate=identity.certificate, key=identity.key)
    with rsyslogd(tmp_path, secured) as port:
        both = batch(notice(1, message="größer"), notice(2, message=HOSTILE, severity=Severity.ERROR))
        for _ in range(2):
            assert by_tls(port, identity.certificate).send(both) == []
        lines = written(tmp_path, 4)
    assert lines.count("local3.warning coldchain alert.raised\ufeffkrios / visit: größer") == 2
    assert sum(line.startswith("local3.err coldchain alert.raised") for line in lines) == 2


def test_by_tls_octets_are_counted_and_the_end_is_said(identity: Identity) -> None:
    """What a receiver of TLS reads to a proper end is the same as by TCP, whether or not it says its end in return."""
    received: queue.Queue[bytes] = queue.Queue()
    for polite in (True, False):

        def answer(line: socket.socket, polite: bool = polite) -> None:
            with identity.context().wrap_socket(line, server_side=True) as secured:
                received.put(read_all(secured))
                if polite:
                    secured.unwrap()

        with answering(answer) as port:
            by_tls(port, identity.certificate).send(batch())
        length, _, text = received.get(timeout=20).partition(b" ")
        assert int(length) == len(text)
        assert RFC5424.fullmatch(text)


def test_a_receiver_that_cannot_be_trusted_is_told_nothing(identity: Identity) -> None:
    """An authority that nobody has named, a certificate of another name, no TLS at all, and one that hangs in it."""
    received: queue.Queue[bytes] = queue.Queue()

    def answer(line: socket.socket) -> None:
        with identity.context().wrap_socket(line, server_side=True) as secured:
            received.put(read_all(secured))

    with answering(answer) as port:
        with pytest.raises(DeliveryError, match="ca_file"):
            by_tls(port, None).send(batch())
        with pytest.raises(DeliveryError, match="not valid for"):
            by_tls(port, identity.certificate, "127.1").send(batch())
    with answering(lambda line: line.sendall(b"220 hello\r\n"), port=0) as port, pytest.raises(DeliveryError):
        by_tls(port, identity.certificate).send(batch())
    with answering(lambda line: received.put(read_all(line)[:0]), port=0) as port:
        silent = replace(by_tls(port, None), patience=Patience(answer_seconds=0.2, total_seconds=10))
        with pytest.raises(DeliveryError) as caught:
            silent.send(batch())
    assert caught.value.retry
    assert set(received.queue) <= {b""}


def test_a_receiver_that_takes_it_by_tls_and_hangs_is_given_up_in_time(identity: Identity) -> None:
    """What it has read nobody knows until it says its end; a retry may mend that."""
    go_on = threading.Event()

    def hang(line: socket.socket) -> None:
        with identity.context().wrap_socket(line, server_side=True):
            go_on.wait(WAIT_SECONDS)

    with answering(hang) as port:
        syslog = replace(by_tls(port, identity.certificate), patience=Patience(answer_seconds=0.3, total_seconds=10))
        with pytest.raises(DeliveryError, match="in time") as caught:
            syslog.send(batch())
        go_on.set()
    assert caught.value.retry


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
