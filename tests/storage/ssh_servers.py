"""A real sshd of a test's own: on loopback, on a free port, with keys of its own, in the foreground as a child."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import psutil
import pytest

from coldchain.storage.ssh.settings import SshSettings
from coldchain.storage.ssh.store import SshStore
from tests.storage.every_store import Subject, flipped_in, swapped_for_empty

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
PrintMotd no
PermitUserRC no
SetEnv HOME={folder}/home
Subsystem sftp internal-sftp
"""
_STARTING_SECONDS = 20


@dataclass
class SshServer:
    """An sshd whose files are in `folder`; `settings` reaches it as the user who runs the tests."""

    folder: Path
    settings: SshSettings
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert program is not None
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen([program, "-D", "-e", "-f", str(self.folder / "config")], stderr=log)
        until = time.monotonic() + _STARTING_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "sshd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it, and end every connection that it holds."""
        if self.process is None:
            return
        for child in (*self._children(), self.process):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                child.kill()
        self.process.wait()
        self.process = None

    @property
    def port(self) -> int:
        """The port that it listens at."""
        assert self.settings.port is not None
        return self.settings.port

    def helpers(self) -> list[psutil.Process]:
        """The helpers that run at the far ends of its connections."""
        found = []
        for child in self._children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any("coldchain-helper" in word for word in child.cmdline()) and "-I" in child.cmdline():
                    found.append(child)
        return found

    def change_host_key(self) -> None:
        """Have another host key from the next start on."""
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink()
        _make_key(self.folder / "host_key")

    def _children(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []


def make_server(folder: Path) -> SshServer:
    """Make the keys and the configuration of a server in an empty folder, and start it; the test skips without sshd."""
    for program, package in (("sshd", "openssh-server"), ("ssh", "openssh-client")):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {program} (Debian package {package})")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd of root gives up its rights
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("host_key", "user_key"):
        _make_key(folder / name)
    # A home without the start-up files of the user's shell: what they begin is no part of a test, may take long, and
    # leaves its locks behind where a test kills it.
    (folder / "home").mkdir()
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    settings = SshSettings(
        host="127.0.0.1",
        user=pwd.getpwuid(os.geteuid()).pw_name,
        port=port,
        identity_file=folder / "user_key",
        known_hosts_file=folder / "known_hosts",
        options=("KexAlgorithms=curve25519-sha256",),
        python=sys.executable,
    )
    server = SshServer(folder, settings)
    server.start()
    return server


def patient_for(settings: SshSettings, seconds: float) -> SshSettings:
    """The settings with another patience for a link that says nothing."""
    return replace(settings, silence_seconds=seconds, connect_seconds=max(seconds, 10.0))


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[SshServer]:
    """A running sshd."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    server = make_server(folder)
    yield server
    server.stop()


def ssh_subject(request: pytest.FixtureRequest) -> Subject:
    """A store on another host for the suite that every store must pass."""
    folder: Path = request.getfixturevalue("tmp_path") / "far"
    (folder / "sshd").mkdir(parents=True)
    root = folder / "root"
    root.mkdir()
    server = make_server(folder / "sshd")
    request.addfinalizer(server.stop)

    def make() -> SshStore:
        store = SshStore("far", PurePosixPath(root), server.settings)
        request.addfinalizer(store.close)
        return store

    other = make()  # a connection costs time: one other object serves as all others
    return Subject(make(), again=lambda: other, flip=flipped_in(root), swap=swapped_for_empty(root))
