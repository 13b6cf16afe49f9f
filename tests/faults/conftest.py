"""A facility for every test of a fault, and a file system with errors on demand."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coldchain.catalog.engine import upgrade
from tests.faults.bench import Bench, Launcher
from tests.faults.passthrough import Faulty, passed_through
from tests.storage.drives import make_drive  # noqa: F401  # a fixture


@pytest.fixture(scope="session")
def _launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="coldchain-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_bench(request: pytest.FixtureRequest, _launcher: Launcher, _migrated: bytes) -> Iterator[Callable[..., Bench]]:
    """Make a facility in a folder; with `catalog`, on that one."""
    made: list[Bench] = []

    def make(folder: Path, *, site: str = "here", catalog: Path | None = None) -> Bench:
        (folder / "camera" / "visit").mkdir(parents=True, exist_ok=True)
        path = catalog or folder / "catalog.sqlite"
        if not path.exists():
            path.write_bytes(_migrated)
        tried = getattr(request.function, "tried", None)
        made.append(Bench(folder, f"sqlite:///{path}", _launcher, tried, site=site))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench], tmp_path: Path) -> Bench:
    """A facility without stores."""
    return make_bench(tmp_path)


@pytest.fixture(scope="session")
def _mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with passed_through(tmp_path_factory.mktemp("passed")) as made:
        yield made


@pytest.fixture
def faulty(_mounted: Faulty, tmp_path: Path) -> Iterator[Faulty]:
    """A folder of its own on a file system whose operations fail on demand."""
    name = tmp_path.name
    (_mounted.beneath / name).mkdir()
    yield Faulty(_mounted.folder / name, _mounted.beneath / name, _mounted.rules, _mounted.process)
    _mounted.heal()
