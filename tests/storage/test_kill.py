from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coldchain.catalog import files, replicas, sessions
from coldchain.catalog.engine import Catalog
from coldchain.model.files import FileKind, ReplicaState
from coldchain.model.session import Layout
from coldchain.storage.ring import BUFFER_BYTES

KILLS = 20
STORES = ("raid", "archive")
NAME = "krios/visit"
SIZES = (BUFFER_BYTES + 5, 300, BUFFER_BYTES * 2)

# Imports once and forks for every round, so that twenty kills do not cost twenty imports. Each line on standard input
# starts a copier; its process id is the answer, then "idle" if it lives to see everything done.
SCRIPT = """
import os, sys, time
from pathlib import Path
from coldchain.catalog.engine import open_catalog
from coldchain.storage.copier import Copier
from coldchain.storage.posix import PosixStore

url, root, *names = sys.argv[1:]
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        catalog = open_catalog(url, "here")
        copier = Copier(catalog, {name: PosixStore(name, Path(root, name)) for name in names}, threads=2)
        copier.start()
        while not copier.idle():
            time.sleep(0.005)
        copier.stop()
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


@contextmanager
def _launcher(url: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SCRIPT, url, str(root), *STORES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _start(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def _ended(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def _wait_for_copies(root: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(len(_names(root / name)) for name in STORES) < count:
        assert time.monotonic() < deadline, "the copier does not get on"
        time.sleep(0.002)


def _names(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.tiff") if not path.name.startswith(".")]


def _copies(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in _names(root)}


def test_kill_at_any_moment_leaves_only_whole_copies(catalog: Catalog, tmp_path: Path) -> None:
    """After each of 20 `kill -9`, a final name holds whole content; a rerun completes all and leaves nothing else."""
    source = tmp_path / "camera" / "visit"
    source.mkdir(parents=True)
    for name in STORES:
        (tmp_path / name).mkdir()
    session = sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root=str(source.parent),
        folder="visit",
        layout=Layout.PLAIN,
    )
    chance = random.Random(20)
    truth: dict[str, bytes] = {}
    arrived = []
    with _launcher(f"sqlite:///{tmp_path / 'catalog.sqlite'}", tmp_path) as process:
        for turn in range(KILLS):
            for n, size_bytes in enumerate(SIZES):
                name = f"{turn}-{n}.tiff"
                content = chance.randbytes(size_bytes)
                (source / name).write_bytes(content)
                truth[f"{NAME}/{name}"] = content
                arrived.append(
                    files.record_arrival(
                        catalog,
                        session_id=session.id,
                        relative_path=name,
                        kind=FileKind.MOVIE,
                        size_bytes=size_bytes,
                        modified_ns=(source / name).stat().st_mtime_ns,
                        stores=STORES,
                    )
                )
            standing = sum(len(_copies(tmp_path / name)) for name in STORES)
            child = _start(process)
            # A moment between two copies chosen by chance, and then a little later, in the middle of the next.
            _wait_for_copies(tmp_path, chance.randint(standing, len(STORES) * len(truth)))
            time.sleep(chance.uniform(0.0, 0.04))
            with suppress(ProcessLookupError):  # it had finished
                os.kill(child, signal.SIGKILL)
            _ended(process)
            for name in STORES:
                found = _copies(tmp_path / name)
                assert all(truth[path] == content for path, content in found.items())
        _start(process)
        assert _ended(process) == 0
    for name in STORES:
        assert _copies(tmp_path / name) == truth
        assert list((tmp_path / name).rglob(".*")) == []
    for file in arrived:
        assert [r.state for r in replicas.of_file(catalog, file.id)] == [ReplicaState.VERIFIED] * 2
