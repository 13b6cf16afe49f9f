"""The driver against a real catalog, its steps ended by hand: whatever happens between, nothing sticks."""

from __future__ import annotations

import errno
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coldchain.catalog import events, exposures, files, sessions, steps
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.errors import CatalogError, ColdchainError, ComputeError, StorageError
from coldchain.model.files import FileKind
from coldchain.model.optics import Optics
from coldchain.model.results import Step, StepRun, StepState
from coldchain.model.session import Exposure, ExposureState, Layout, Session, SessionParameters
from coldchain.preprocess import pipeline as module
from coldchain.preprocess.pipeline import Pipeline
from coldchain.preprocess.plan import PipelineParameters
from coldchain.preprocess.steps import StepJob, StepOutcome

DEADLINE_SECONDS = 20.0
OPTICS = Optics(
    pixel_size_angstrom=1.0,
    voltage_kilovolt=300.0,
    spherical_aberration_millimeter=2.7,
    amplitude_contrast=0.1,
    dose_e_per_square_angstrom=40.0,
)


def wait_for(holds: Callable[[], object]) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@dataclass
class HandEngine:
    """An engine whose work is ended by the test."""

    slots: int = 2
    is_real: bool = False
    starts_none: bool = False
    jobs: list[tuple[StepJob, Future[Any]]] = field(default_factory=list)

    def submit(self, function: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> Future[Any]:
        """Note the job; it runs until the test ends it. A real one runs here and now, as a worker runs it."""
        if self.starts_none:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        future: Future[Any] = Future()
        if self.is_real:
            try:
                future.set_result(function(*args))
            except (ColdchainError, ImportError, OSError, ValueError) as error:
                future.set_exception(pickle.loads(pickle.dumps(error)))
        self.jobs.append((args[0], future))
        return future

    def close(self) -> None:
        """Nothing to let go."""

    def running(self) -> list[StepJob]:
        """What has not been ended yet."""
        return [job for job, future in self.jobs if not future.done()]

    def end(self, error: BaseException | None = None) -> None:
        """End everything that runs, well or with an error."""
        for job, future in self.jobs:
            if not future.done() and error is not None:
                future.set_exception(error)
            elif not future.done():
                roles = {Step.ALIGN: ["micrograph", "unweighted"], Step.CTF: ["diagnostic"]}
                future.set_result(StepOutcome({role: f"{role}.mrc" for role in roles.get(job.step, [])}, None, 0.1))


@dataclass
class Bench:
    """A pipeline on a catalog with one session, and an engine in the test's hands."""

    catalog: Catalog
    session: Session
    root: Path
    engine: HandEngine
    pipeline: Pipeline

    def arrive(self, path: str, kind: FileKind = FileKind.MOVIE, *, digest: str | None = "a") -> Exposure:
        """A file of the session arrives as an exposure's input; with its digest, as after copying, or without."""
        (self.root / path).write_bytes(b"x")
        exposure = exposures.ensure(self.catalog, self.session.id, path.partition(".")[0])
        file = files.record_arrival(
            self.catalog,
            session_id=self.session.id,
            relative_path=path,
            kind=kind,
            size_bytes=1,
            modified_ns=time.monotonic_ns(),
            stores=[],
            exposure_id=exposure.id,
        )
        if digest is not None:
            files.set_digest(self.catalog, file.id, digest * 64)
        return exposures.attach_input(self.catalog, exposure.id, file.id)

    def state(self, exposure: Exposure) -> ExposureState:
        """Where the exposure stands."""
        return exposures.get(self.catalog, exposure.id).state

    def runs(self, exposure: Exposure, state: StepState = StepState.DONE) -> list[StepRun]:
        """Its runs in a state."""
        return [run for run in steps.runs_of(self.catalog, exposure.id) if run.state is state]

    def run_through(self, exposure: Exposure) -> None:
        """End every step well until the exposure is done."""

        def is_done() -> bool:
            self.engine.end()
            return self.state(exposure) is ExposureState.DONE

        wait_for(is_done)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A running pipeline that looks often."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "WAKE_SECONDS", 0.05)
    monkeypatch.setattr(module.room, "OUTAGE_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    upgrade(url)
    catalog = open_catalog(url, "main")
    (tmp_path / "camera" / "visit").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    session = sessions.create(
        catalog,
        name="visit",
        instrument_name="k",
        source_root=str(tmp_path / "camera"),
        folder="visit",
        layout=Layout.PLAIN,
        parameters=SessionParameters(OPTICS),
    )
    engine = HandEngine()
    pipeline = Pipeline(
        catalog, engine, results_root=tmp_path / "results", parameters=PipelineParameters(), instrument_optics={}
    )
    pipeline.start()
    bench = Bench(catalog, session, tmp_path / "camera" / "visit", engine, pipeline)
    yield bench
    assert bench.pipeline.alive(), "the driver has ended"
    engine.end()
    bench.pipeline.stop()
    catalog.close()


def test_an_exposure_takes_its_steps_and_is_done(bench: Bench) -> None:
    """Four steps, each once, in their order."""
    exposure = bench.arrive("m.tif")
    bench.run_through(exposure)
    assert [run.step for run in bench.runs(exposure)] == list(Step)
    wait_for(bench.pipeline.idle)


def test_a_movie_that_follows_its_sum_takes_over(bench: Bench) -> None:
    """The camera's sum is being computed when the movie comes, whose digest is not known yet: the movie is computed."""
    exposure = bench.arrive("m.mrc", FileKind.MICROGRAPH)
    wait_for(bench.engine.running)
    bench.arrive("m.tif", digest=None)
    bench.engine.end()
    wait_for(lambda: bench.runs(exposure))
    (movie,) = (f for f in files.of_exposure(bench.catalog, exposure.id) if f.kind is FileKind.MOVIE)
    files.set_digest(bench.catalog, movie.id, "b" * 64)
    bench.run_through(exposure)
    assert Step.ALIGN in {run.step for run in bench.runs(exposure)}


def test_a_catalog_that_balks_stops_nothing_for_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the catalog's functions fails once, after or before it wrote: every step is still recorded once."""
    rng = random.Random(7)

    def balking(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if rng.random() < 0.3:
                if after:
                    function(*args, **kwargs)
                raise CatalogError("the database is locked")
            return function(*args, **kwargs)

        return call

    for name, after in (("finish", True), ("begin", True), ("done", False)):
        monkeypatch.setattr(module.steps, name, balking(getattr(steps, name), after=after))
    for name, after in (("claim", True), ("get", False), ("set_state", True)):
        monkeypatch.setattr(module.exposures, name, balking(getattr(exposures, name), after=after))
    exposure = bench.arrive("m.tif")

    def is_done() -> bool:
        bench.engine.end()
        found = exposures.page(bench.catalog, bench.session.id, limit=1, before=None)
        return found[0].state is ExposureState.DONE

    wait_for(is_done)
    monkeypatch.undo()
    assert [run.step for run in bench.runs(exposure)] == list(Step)


def test_an_outage_quarantines_only_what_fails_again_and_again(bench: Bench) -> None:
    """A disk that does not answer once costs a pause; a movie that fails three times is quarantined."""
    exposure = bench.arrive("m.tif")
    wait_for(bench.engine.running)
    bench.engine.end(StorageError("the disk does not answer"))
    bench.run_through(exposure)
    other = bench.arrive("n.tif")
    for _ in range(3):
        wait_for(bench.engine.running)
        bench.engine.end(ComputeError("a worker process died"))
    wait_for(lambda: bench.state(other) is ExposureState.QUARANTINED)
    assert len(bench.runs(other, StepState.FAILED)) == 3


def test_a_machine_that_starts_no_process_quarantines_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again after a pause, more often than any exposure has tries, and computes when it has room."""
    monkeypatch.setattr(module.room, "OUTAGE_SECONDS", 0.01)
    bench.engine.starts_none = True
    exposure = bench.arrive("m.tif")
    wait_for(lambda: len(bench.runs(exposure, StepState.FAILED)) > PipelineParameters().attempts)
    assert "no worker could be started" in bench.runs(exposure, StepState.FAILED)[-1].detail
    bench.engine.starts_none = False
    bench.run_through(exposure)


class _Unloadable:
    """Stands in for the kernels' module, whose import fails with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def find_spec(self, name: str, *_: object) -> None:
        """Raise it."""
        if name == "coldchain.preprocess.steps":
            raise self._error


@pytest.mark.parametrize(
    "error",
    [
        ImportError("Numba needs NumPy 2.2 or less"),
        OSError("libscipy_openblas.so: cannot open shared object file"),
        ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
    ],
    ids=["ImportError", "OSError", "ValueError"],
)
def test_an_installation_that_cannot_compute_quarantines_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It is tried now and then and said with what to do, more often than any exposure has tries; when it is mended all
    are computed."""
    monkeypatch.setattr(module.room, "BROKEN_SECONDS", 0.01)
    bench.engine.is_real = True
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "coldchain.preprocess.steps")
        patch.setattr(sys, "meta_path", [_Unloadable(error), *sys.meta_path])
        arrived = [bench.arrive("m.tif"), bench.arrive("n.tif", digest="b")]
        attempts = PipelineParameters().attempts
        wait_for(lambda: all(len(bench.runs(each, StepState.FAILED)) > attempts for each in arrived))
        told = [event.kind for event in events.recent(bench.catalog)]
        bench.engine.is_real = False
        wait_for(bench.engine.running)
    assert "step.failed" in told and "exposure.quarantined" not in told
    detail = bench.runs(arrived[0], StepState.FAILED)[-1].detail
    assert str(error) in detail and "Mend this host's installation" in detail
    for exposure in arrived:
        bench.run_through(exposure)


def test_what_is_waited_for_is_noticed_when_it_comes(bench: Bench) -> None:
    """A gain given by name that is not there yet, and a movie whose disk went away: both go on when they are back."""
    given = SessionParameters(Optics(gain="gain.mrc").over(OPTICS))
    sessions.change_parameters(bench.catalog, bench.session.id, lambda _: given)
    exposure = bench.arrive("m.tif")
    wait_for(lambda: bench.state(exposure) is ExposureState.WAITING)
    assert "gain reference is not there" in exposures.get(bench.catalog, exposure.id).reason
    (bench.root / "gain.mrc").write_bytes(b"gain")
    wait_for(bench.engine.running)
    (bench.root / "m.tif").rename(bench.root / "away")
    bench.engine.end()
    wait_for(lambda: "movie is not there" in exposures.get(bench.catalog, exposure.id).reason)
    (bench.root / "away").rename(bench.root / "m.tif")
    bench.run_through(exposure)


def test_a_parameter_that_changes_during_a_step_counts(bench: Bench) -> None:
    """The step in hand is recorded, and what the new value reaches is computed with it."""
    exposure = bench.arrive("m.tif")
    wait_for(bench.engine.running)
    changed = SessionParameters(Optics(pixel_size_angstrom=2.0).over(OPTICS))
    sessions.change_parameters(bench.catalog, bench.session.id, lambda _: changed)
    bench.run_through(exposure)
    sizes = [run.parameters["pixel_size_angstrom"] for run in bench.runs(exposure) if run.step is Step.ALIGN]
    assert sizes[-1] == 2.0
    assert bench.runs(exposure)[-1].step is Step.QUALITY


def test_going_back_to_earlier_values_shows_their_results_again(bench: Bench) -> None:
    """The earlier runs count as the newest, with their results, and nothing is computed for it."""
    exposure = bench.arrive("m.tif")
    bench.run_through(exposure)
    other = SessionParameters(Optics(pixel_size_angstrom=2.0).over(OPTICS))
    sessions.change_parameters(bench.catalog, bench.session.id, lambda _: other)
    bench.run_through(exposure)
    jobs = len(bench.engine.jobs)
    sessions.change_parameters(bench.catalog, bench.session.id, lambda _: SessionParameters(OPTICS))
    wait_for(lambda: bench.state(exposure) is ExposureState.DONE)
    newest = {run.step: run for run in bench.runs(exposure)}
    assert newest[Step.ALIGN].parameters["pixel_size_angstrom"] == 1.0
    first = bench.runs(exposure)[: len(Step)]
    assert {run.key for run in newest.values()} == {run.key for run in first}
    assert len(bench.engine.jobs) == jobs


def test_what_a_killed_process_left_is_taken_up(bench: Bench, tmp_path: Path) -> None:
    """A run that was running is interrupted, its scratch is removed, and its exposure is computed."""
    exposure = bench.arrive("m.tif", digest=None)
    exposures.set_state(bench.catalog, exposure.id, ExposureState.PROCESSING)
    run = steps.begin(bench.catalog, exposure.id, Step.ALIGN, "k", {})
    scratch = tmp_path / "results" / "k" / "visit" / "m" / f".align-{run.id}.part"
    scratch.mkdir(parents=True)
    bench.pipeline.stop()
    again = Pipeline(
        bench.catalog,
        bench.engine,
        results_root=tmp_path / "results",
        parameters=PipelineParameters(),
        instrument_optics={},
    )
    again.start()
    bench.pipeline = again
    assert not scratch.exists()
    assert [r.id for r in bench.runs(exposure, StepState.INTERRUPTED)] == [run.id]
    assert bench.state(exposure) is ExposureState.READY
    (file,) = files.of_exposure(bench.catalog, exposure.id)
    files.set_digest(bench.catalog, file.id, "a" * 64)
    bench.run_through(exposure)
