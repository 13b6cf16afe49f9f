"""A verified copy to another host by SSH, beside what others send by SSH: to an sshd of its own on loopback.

    python -m benchmarks ssh [--folder FOLDER] [--rounds 3] [--paramiko PYTHON]

Every line is timed until its copies are durable on the far side's disk; the source is in the page cache. Ours hashes
the source, has each copy read back there past the page cache and compares; the others prove nothing, but for the line
that does by hand what ours does. Loopback has no latency and no limit: what is measured is what the ends themselves
cost, on one machine that does the work of both. `--paramiko` names a Python of a throwaway environment that has it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median

from coldchain.storage.ring import Ring, RingPool, stream
from coldchain.storage.ssh.store import SshIncoming, SshStore
from coldchain.storage.store import FileFacts
from tests.storage.ssh_servers import SshServer, make_server

THREADS = 2
BATCH_FILES = 100
_LARGE_BYTES = 8 << 20  # from this size on a file is a batch of its own
_RINGS = RingPool()

_PARAMIKO = """
import os, paramiko, sys
host, port, user, key, known, source, target = sys.argv[1:]
client = paramiko.SSHClient()
client.load_host_keys(known)
client.connect(host, port=int(port), username=user, key_filename=key, look_for_keys=False, allow_agent=False)
sftp = client.open_sftp()
for name in sorted(os.listdir(source)):
    sftp.put(os.path.join(source, name), os.path.join(target, name))
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """So many files of so many bytes each."""

    files: int
    file_bytes: int

    def __str__(self) -> str:
        return f"{self.files} × {self.file_bytes / 1e6:g} MB"


WORKLOADS = (Workload(10, 100_000_000), Workload(500, 100_000))


def _ours(server: SshServer, source: Path, target: Path) -> None:
    paths = sorted(source.iterdir())
    step = 1 if paths[0].stat().st_size >= _LARGE_BYTES else BATCH_FILES
    batches = [paths[begin : begin + step] for begin in range(0, len(paths), step)]
    with (
        SshStore("far", PurePosixPath(target), server.settings) as store,
        ThreadPoolExecutor(max_workers=THREADS) as pool,
    ):
        list(pool.map(lambda batch: _copy(store, batch), batches))


def _copy(store: SshStore, paths: Sequence[Path]) -> None:
    """One batch, made durable for the price of one."""
    with _RINGS.borrow() as ring, ExitStack() as stack:
        sealed = [_send(store, path, ring, stack) for path in paths]
        store.flush()
        for incoming, sha256 in sealed:
            incoming.prove(sha256, ring)
            incoming.publish(sha256, ring, durable=False)
        store.flush()


def _send(store: SshStore, path: Path, ring: Ring, stack: ExitStack) -> tuple[SshIncoming, str]:
    found = path.stat()
    facts = FileFacts(found.st_size, found.st_mtime_ns, found.st_mode)
    incoming = stack.enter_context(store.receive(path.name, facts))
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        stream(file.readinto, found.st_size, [digest.update, incoming.write], ring)
    incoming.seal(durable=False)
    return incoming, digest.hexdigest()


def _ssh_words(server: SshServer, port_flag: str) -> list[str]:
    settings = server.settings
    return [
        *(port_flag, str(settings.port), "-i", str(settings.identity_file)),
        *("-o", f"UserKnownHostsFile={settings.known_hosts_file}", "-o", "BatchMode=yes"),
        *("-c", "aes128-gcm@openssh.com"),
    ]


def _at(server: SshServer, target: Path) -> str:
    return f"{server.settings.user}@{server.settings.host}:{target}"


def _run(*command: str, words: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, input=words)


def _durable(target: Path) -> None:
    _run("sync", "-f", str(target))


def _rsync(server: SshServer, source: Path, target: Path) -> None:
    shell = shlex.join(["ssh", *_ssh_words(server, "-p")])
    _run("rsync", "-a", "--whole-file", "-e", shell, f"{source}/", f"{_at(server, target)}/")
    _durable(target)


def _rsync_checked(server: SshServer, source: Path, target: Path) -> None:
    _rsync(server, source, target)
    copies = sorted(target.iterdir())
    for path in copies:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    _run("sha256sum", *map(str, sorted(source.iterdir())))
    there = shlex.join(["sha256sum", *map(str, copies)])
    _run("ssh", *_ssh_words(server, "-p"), f"{server.settings.user}@{server.settings.host}", there)


def _scp(server: SshServer, source: Path, target: Path) -> None:
    _run("scp", "-q", "-p", *_ssh_words(server, "-P"), *map(str, sorted(source.iterdir())), _at(server, target))
    _durable(target)


def _sftp(server: SshServer, source: Path, target: Path) -> None:
    commands = f"put -p {source}/* {target}/\n"
    host = f"{server.settings.user}@{server.settings.host}"
    _run("sftp", "-q", "-b", "-", *_ssh_words(server, "-P"), host, words=commands)
    _durable(target)


def _paramiko(python: str) -> Callable[[SshServer, Path, Path], None]:
    def send(server: SshServer, source: Path, target: Path) -> None:
        settings = server.settings
        where = [settings.host, str(settings.port), str(settings.user)]
        _run(
            python,
            *("-c", _PARAMIKO, *where, str(settings.identity_file), str(settings.known_hosts_file)),
            *(str(source), str(target)),
        )
        _durable(target)

    return send


WAYS: dict[str, Callable[[SshServer, Path, Path], None]] = {
    "ours: one verified copy": _ours,
    "rsync, sync": _rsync,
    "rsync, sync, sha256sum of both": _rsync_checked,
    "scp, sync": _scp,
    "sftp, sync": _sftp,
}


def measure(
    workload: Workload, *, folder: Path | None = None, rounds: int = 3, paramiko: str | None = None
) -> dict[str, float]:
    """Seconds of each way, the median of the rounds, which alternate between the ways."""
    ways = WAYS | ({"paramiko SFTP, sync": _paramiko(paramiko)} if paramiko else {})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(dir=folder, prefix="coldchain-bench-") as name:
        source, keys = Path(name, "source"), Path(name, "sshd")
        source.mkdir()
        keys.mkdir()
        for n in range(workload.files):
            (source / f"movie_{n:04}.tiff").write_bytes(os.urandom(workload.file_bytes))
        os.sync()
        server = make_server(keys)
        try:
            for _ in range(rounds):
                for way, send in ways.items():
                    seconds[way].append(_timed(send, server, source, Path(name, "target")))
        finally:
            server.stop()
    return {way: median(measured) for way, measured in seconds.items()}


def _timed(send: Callable[[SshServer, Path, Path], None], server: SshServer, source: Path, target: Path) -> float:
    for path in source.iterdir():
        path.read_bytes()
    target.mkdir()
    began = time.perf_counter()
    send(server, source, target)
    seconds = time.perf_counter() - began
    assert len(list(target.iterdir())) == len(list(source.iterdir()))
    shutil.rmtree(target)
    os.sync()
    return seconds


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print; without arguments, with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work; its disk is what is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paramiko", help="a Python that has paramiko")
    given = parser.parse_args(arguments)
    for workload in WORKLOADS:
        seconds = measure(workload, folder=given.folder, rounds=given.rounds, paramiko=given.paramiko)
        print(f"{workload} by SSH over loopback, median of {given.rounds} rounds")
        print(f"{'':34} {'seconds':>8} {'MB/s':>7} {'files/s':>8} {'× ours':>7}")
        ours = seconds["ours: one verified copy"]
        for way, taken in seconds.items():
            rate = workload.files * workload.file_bytes / taken / 1e6
            print(f"{way:34} {taken:8.2f} {rate:7.0f} {workload.files / taken:8.0f} {taken / ours:7.2f}")
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
