"""A facility for tests: its folder, its service as a real process, and waiting for what it should come to."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from coldchain import config
from coldchain.catalog import exposures, files, replicas, sessions
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.cli.main import main
from coldchain.formats.tiff import write_tiff_movie
from coldchain.model.files import DataFile, ReplicaState
from coldchain.model.session import Exposure, Session

DEADLINE_SECONDS = 240.0
PATIENCE_SECONDS = 2.0

_TOML = """
[facility]
name = "Test"
[[instrument]]
name = "scope"
movie_root = "camera"
settle_seconds = 0.5
scan_seconds = 1
patience_seconds = {patience}
[instrument.optics]
{optics}
[[store]]
name = "live"
url = "stores/live"
[[store]]
name = "archive"
tier = "archive"
url = "stores/archive"
[pipeline]
{pipeline}
[compute]
workers = {workers}
threads_per_worker = 1
[web]
port = 0
"""

KNOWN_OPTICS = "pixel_size_angstrom = 2.0\nvoltage_kilovolt = 300\ndose_e_per_square_angstrom = 20"


@dataclass(frozen=True)
class TestFacility:
    """A facility in a folder. Its camera writes to `camera`."""

    __test__ = False

    root: Path

    @property
    def camera(self) -> Path:
        """The movie root."""
        return self.root / "camera"

    @property
    def config_file(self) -> Path:
        """Its facility.toml."""
        return self.root / config.FILE_NAME

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog, opened beside the service."""
        catalog = open_catalog(config.load(self.config_file).catalog.url, "main")
        try:
            yield catalog
        finally:
            catalog.close()

    def start(self) -> subprocess.Popen[bytes]:
        """The service as a process of its own; its log goes to `log` in the root."""
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "coldchain", "run", "--config", str(self.config_file)], stdout=log, stderr=log
            )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The service, ended by SIGTERM at the end; its exit status must be 0."""
        process = self.start()
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0, self.log()
        finally:
            process.kill()
            process.wait()

    def typed(self, *words: str) -> str:
        """What a command says that somebody types beside the service; it must go well."""
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", ["coldchain", *words, "--config", str(self.config_file)])
            main()
        assert not ended.value.code, said.getvalue()
        return said.getvalue()

    def log(self) -> str:
        """What the service has logged."""
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")

    def url(self) -> str:
        """Where the service that was started last serves its pages."""
        return re.findall(r"http://127\.0\.0\.1:\d+", self.log())[-1]

    def wait(self, holds: Callable[[Catalog], bool]) -> None:
        """Wait until a condition holds in the catalog, or fail with the log."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self.catalog() as catalog:
            while not holds(catalog):
                assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s; the log:\n{self.log()}"
                time.sleep(0.1)


def make_facility(
    root: Path,
    *,
    optics: str = KNOWN_OPTICS,
    pipeline: str = "particle_diameter_angstrom = 60",
    workers: int = 1,
    patience: float = PATIENCE_SECONDS,
) -> TestFacility:
    """A facility that looks often and waits little."""
    for name in ("camera", "stores/live", "stores/archive"):
        (root / name).mkdir(parents=True)
    text = _TOML.format(optics=optics, pipeline=pipeline, workers=workers, patience=patience)
    (root / config.FILE_NAME).write_text(text, encoding="utf-8")
    url = config.load(root / config.FILE_NAME).catalog.url
    Path(url.removeprefix("sqlite:///")).write_bytes(_empty_catalog())
    return TestFacility(root)


@cache
def _empty_catalog() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "catalog.sqlite")
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def write_small_movie(path: Path, *, seed: int = 0, frames: int = 3, side: int = 128) -> None:
    """A movie of counting noise on a faint pattern: enough to go through every step in no time."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    pattern = 1 + 0.2 * np.cos(40 * rows) * np.cos(35 * columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiff_movie(path, rng.poisson(4 * pattern, (frames, side, side)).astype(np.uint8), compression="lzw")


def the_session(catalog: Catalog) -> Session | None:
    """The facility's first session, if there is one yet."""
    found = sessions.list_all(catalog)
    return found[-1] if found else None


def all_exposures(catalog: Catalog) -> list[Exposure]:
    """The exposures of all sessions."""
    return [
        exposure
        for session in sessions.list_all(catalog)
        for exposure in exposures.page(catalog, session.id, limit=1000, before=None)
    ]


def standing_files(catalog: Catalog) -> list[DataFile]:
    """The files of all sessions as they now stand."""
    return [
        file for session in sessions.list_all(catalog) for file in files.of_session(catalog, session.id, limit=100_000)
    ]


def is_verified_everywhere(catalog: Catalog, file: DataFile) -> bool:
    """Whether both stores hold a verified copy of the file."""
    copies = replicas.of_file(catalog, file.id)
    return len(copies) == 2 and all(
        replica.state is ReplicaState.VERIFIED and replica.sha256 == file.sha256 for replica in copies
    )
