"""The driver: takes ready exposures, newest first, through their steps.

It holds nothing that matters. A step is journalled in the catalog before it runs, and its end, its result and what
becomes of its exposure are one transaction. Whatever kills this process, a restart finds the exposure unfinished and
the step's key not done, and goes on from there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import UUID

from coldchain.catalog import events, exposures, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.compute.engine import Engine
from coldchain.errors import CatalogError, NoWorkerError, ProcessingError, printable
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, ProducedFile
from coldchain.model.optics import Optics
from coldchain.model.policy import CopyPlan
from coldchain.model.quality import Thresholds
from coldchain.model.results import Step, StepRun
from coldchain.model.session import Exposure, ExposureState, Session
from coldchain.preprocess import room
from coldchain.preprocess.failure import Pause, after_failure
from coldchain.preprocess.judge import Judge
from coldchain.preprocess.plan import PipelineParameters, StepPlan, missing_values, next_step, overtaken, standing_runs
from coldchain.preprocess.produced import produced_files
from coldchain.preprocess.sources import ExposureSources, SourceFinder
from coldchain.preprocess.step_job import StepJob, StepOutcome, run_in_worker

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
WAKE_SECONDS = 30.0
WAITING_PAGE = 200

# What a fault of ours, or a machine at its limits, may raise in the driver; it must not end it.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


_NO_COPIES = CopyPlan(())
# Rings and brightness are those of the plain sum; the picker and the eye get the dose-weighted one.
_READ_OF_SUMS: Mapping[Step, str] = {
    Step.CTF: "unweighted",
    Step.PICK: "micrograph",
    Step.PREVIEW: "micrograph",
    Step.QUALITY: "unweighted",
}


@dataclass(frozen=True, slots=True)
class _InFlight:
    exposure: Exposure
    run: StepRun
    folder: Path
    future: Future[StepOutcome]
    began: float


class Pipeline:
    """Runs the steps of ready exposures on an engine, from a thread of its own.

    What `copies` wants of sums and results is journalled as files to be copied.
    """

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        *,
        results_root: Path,
        parameters: PipelineParameters,
        instrument_optics: Mapping[str, Optics],
        thresholds: Thresholds = Thresholds(),
        copies: CopyPlan = _NO_COPIES,
    ) -> None:
        self._catalog = catalog
        self._copies = copies
        self._engine = engine
        self._results_root = results_root
        self._parameters = parameters
        self._sources = SourceFinder(catalog, instrument_optics)
        self._judge = Judge(catalog, results_root, thresholds)
        self._in_flight: dict[UUID, _InFlight] = {}
        self._failures: Counter[str] = Counter()
        self._hold: room.Hold | None = None
        self._unsure = False
        self._woke_at = 0.0
        self._waiting_before: UUID | None = None
        self._ticking = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeline")

    def start(self) -> None:
        """Take up what an earlier process left running, then begin."""
        interrupted = steps.interrupt_running(self._catalog)
        for run in interrupted:
            exposure = exposures.get(self._catalog, run.exposure_id)
            scratch = self._scratch(self._folder(exposure, self._session(exposure)), run)
            shutil.rmtree(scratch, ignore_errors=True)
        if interrupted:
            log.info("taking up %d interrupted step(s) again", len(interrupted))
        self._thread.start()

    def stop(self) -> None:
        """Finish the steps in hand, record them, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def idle(self) -> bool:
        """Whether nothing runs and nothing is ready now. Raises CatalogError."""
        with self._ticking:
            return not self._in_flight and not exposures.ready(self._catalog, 1)

    def alive(self) -> bool:
        """Whether the driver's thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._guarded_tick()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        wait([flight.future for flight in self._in_flight.values()])
        self._guarded_tick()

    def _guarded_tick(self) -> None:
        with self._ticking:
            for flight in [f for f in self._in_flight.values() if f.future.done()]:
                with self._guarded():
                    self._record(flight)
            if not self._stopping.is_set():
                with self._guarded():
                    self._start_ready()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever this meets stays here, and the next tick makes up for it."""
        try:
            yield
        except CatalogError as error:
            # The database is locked, full or away: nothing is lost, the steps in hand are recorded when it is back.
            self._unsure = True
            log.warning("%s", error)
        except _FAULTS:
            self._unsure = True
            self._hold = room.hold_for_outage(time.monotonic())
            log.exception("the pipeline met a fault; it goes on after a pause")

    def _start_ready(self) -> None:
        """Start what there is room for."""
        if self._unsure:  # an exposure may have been claimed without coming to a step, a run begun without its worker
            steps.interrupt_running(self._catalog, keep=set(self._in_flight))
            self._unsure = False
        now = time.monotonic()
        if now - self._woke_at >= WAKE_SECONDS:
            self._woke_at = now
            self._wake_waiting()
        slots = self._engine.slots - len(self._in_flight)
        if slots > 0 and self._may_start(now):
            found = exposures.ready(self._catalog, slots + len(self._in_flight))
            for exposure in [e for e in found if e.id not in self._in_flight][:slots]:
                claimed = exposures.claim(self._catalog, exposure.id)
                if claimed is not None:
                    self._go_on(claimed)

    def _may_start(self, now: float) -> bool:
        if self._hold is not None and room.is_over(self._hold, now, room.free_bytes(self._results_root)):
            self._hold = None
        return self._hold is None

    # -- the end of a step ------------------------------------------------------------------------------------------

    def _record(self, flight: _InFlight) -> None:
        """Write down how a step ended. Doing so twice is harmless, so a catalog that balks is simply asked again."""
        error = flight.future.exception()
        if error is not None:
            self._record_failure(flight, error)
            del self._in_flight[flight.exposure.id]
            return
        outcome = flight.future.result()
        relative = flight.folder.relative_to(self._results_root)
        steps.finish(
            self._catalog,
            flight.run.id,
            outputs={role: str(relative / name) for role, name in outcome.outputs.items()},
            seconds=outcome.seconds,
            result=outcome.result,
            warnings=outcome.warnings,
            settle_to=ExposureState.READY if self._stopping.is_set() else None,
            produced=self._produced(flight, outcome.outputs),
        )
        del self._failures[flight.run.key]
        del self._in_flight[flight.exposure.id]
        if not self._stopping.is_set():
            exposure = exposures.get(self._catalog, flight.exposure.id)
            if exposure.state is ExposureState.PROCESSING:  # else something changed meanwhile, and it is ready anew
                self._go_on(exposure)

    def _produced(self, flight: _InFlight, outputs: Mapping[str, str]) -> list[ProducedFile]:
        session = self._session(flight.exposure)
        return produced_files(
            flight.run.step,
            outputs,
            folder=flight.folder,
            root=self._results_root,
            session_folder=str(PurePosixPath(session.instrument.name, session.folder)),
            copies=self._copies,
        )

    def _record_failure(self, flight: _InFlight, error: BaseException) -> None:
        decided = after_failure(error, self._failures[flight.run.key] + 1, self._parameters.attempts)
        now = time.monotonic()
        steps.fail(
            self._catalog,
            flight.run.id,
            detail=str(error),
            seconds=now - flight.began,
            settle_to=decided.state,
            reason=decided.reason,
        )
        self._failures[flight.run.key] += decided.counts
        if decided.state is ExposureState.QUARANTINED:
            del self._failures[flight.run.key]  # whoever asks for another try gets all of them
        if decided.pause is Pause.OUTAGE:
            self._hold = room.hold_for_outage(now)
        elif decided.pause is Pause.FULL:
            self._hold = room.hold_for_room(now, room.free_bytes(self._results_root))
        elif decided.pause is Pause.BROKEN:
            self._hold = room.hold_for_mending(now)

    # -- the beginning of a step ------------------------------------------------------------------------------------

    def _go_on(self, exposure: Exposure) -> None:
        """Start a claimed exposure's next step, or say what it waits for, or that it is done.

        It was claimed before its session is read here: a parameter that changes from now on makes it ready again, and
        what is decided here then no longer counts.
        """
        session = self._session(exposure)
        sources = self._sources_or_reason(exposure, session)
        if isinstance(sources, str):
            self._settle(exposure, ExposureState.WAITING, sources)
            return
        if sources is None:
            self._settle(exposure, ExposureState.READY)
            return
        done = steps.done(self._catalog, exposure.id)
        standing = standing_runs(sources.given, self._parameters, done)
        for run in overtaken(standing, done):
            steps.adopt(self._catalog, run.id)
        plan = next_step(sources.given, self._parameters, done)
        if plan is None:
            self._judge.settle(exposure, standing)
        else:
            self._begin(exposure, session, sources, plan)

    def _sources_or_reason(self, exposure: Exposure, session: Session) -> ExposureSources | str | None:
        """What the exposure is computed from, or why it has to wait; None while its input has no digest."""
        try:
            sources = self._sources.find(exposure, session)
        except ProcessingError as error:
            return str(error)
        lacking = [] if sources is None else missing_values(sources.file.kind, sources.optics)
        return _lacking(lacking, session.shell_word) if lacking else sources

    def _wake_waiting(self) -> None:
        """Look whether what exposures wait for has come without anyone telling: a gain reference, a disk.

        A page of them a time, so that the cost does not grow with their number.
        """
        page = exposures.waiting(self._catalog, limit=WAITING_PAGE, before=self._waiting_before)
        self._waiting_before = page[-1].id if len(page) == WAITING_PAGE else None
        free = [e.id for e in page if isinstance(self._sources_or_reason(e, self._session(e)), ExposureSources)]
        if free:
            exposures.wake_waiting(self._catalog, free)

    def _settle(self, exposure: Exposure, state: ExposureState, reason: str = "") -> None:
        exposures.set_state(self._catalog, exposure.id, state, reason, only_from=ExposureState.PROCESSING)

    def _begin(self, exposure: Exposure, session: Session, sources: ExposureSources, plan: StepPlan) -> None:
        if plan.step is Step.ALIGN:
            for warning in sources.warnings:
                self._warn(f"{printable(exposure.name)}: {warning}", exposure)
        run = steps.begin(self._catalog, exposure.id, plan.step, plan.key, plan.parameters)
        began = time.monotonic()
        parent = self._folder(exposure, session)
        folder = parent / f"{plan.step}-{plan.key[:16]}"
        job = StepJob(
            step=plan.step,
            inputs=self._inputs(sources, plan),
            parameters=plan.parameters,
            folder=folder,
            scratch=self._scratch(parent, run),
            threads=self._parameters.threads,
        )
        try:
            future = self._engine.submit(run_in_worker, job)
        except (OSError, RuntimeError) as error:
            found = f"no worker could be started ({error})"
            future = Future()
            future.set_exception(NoWorkerError(found, remedy="Lower compute.workers, or free memory and processes"))
        self._in_flight[exposure.id] = _InFlight(exposure, run, folder, future, began)
        future.add_done_callback(lambda _: self._wake.set())

    def _inputs(self, sources: ExposureSources, plan: StepPlan) -> dict[str, Path]:
        """The files that a step reads."""
        if plan.step is Step.ALIGN:
            references = {"gain": sources.gain, "defects": sources.defects}
            return {"movie": sources.movie} | {role: path for role, path in references.items() if path is not None}
        if sources.file.kind is FileKind.MOVIE:
            aligned = plan.upstream[Step.ALIGN].outputs
            image = self._results_root / aligned[_READ_OF_SUMS[plan.step]]
        else:
            aligned, image = {}, sources.movie
        if plan.step is Step.QUALITY:
            pattern = aligned.get("pattern")
            return {"image": image} | ({"pattern": self._results_root / pattern} if pattern else {})
        spectrum = plan.upstream[Step.CTF].outputs.get("diagnostic") if plan.step is Step.PREVIEW else None
        return {"image": image} | ({"diagnostic": self._results_root / spectrum} if spectrum else {})

    def _session(self, exposure: Exposure) -> Session:
        return sessions.get(self._catalog, exposure.session_id)

    def _folder(self, exposure: Exposure, session: Session) -> Path:
        return self._results_root / session.instrument.name / session.folder / exposure.name

    def _scratch(self, folder: Path, run: StepRun) -> Path:
        return folder / f".{run.step}-{run.id}.part"

    def _warn(self, message: str, exposure: Exposure) -> None:
        events.record(
            self._catalog,
            Severity.WARNING,
            "align.warning",
            message,
            session_id=exposure.session_id,
            exposure_id=exposure.id,
        )


# How a user gives what is missing.
_OPTIONS = {
    "pixel size": "--pixel-size",
    "voltage": "--voltage",
    "dose": "--dose",
    "spherical aberration": "--cs",
    "amplitude contrast": "--amplitude-contrast",
}


def _lacking(values: list[str], session: str) -> str:
    verb = "is" if len(values) == 1 else "are"
    named = " and ".join(filter(None, (", ".join(values[:-1]), values[-1])))
    options = " ".join(f"{_OPTIONS[value]} …" for value in values)
    return (
        f"{named} {verb} not known, from neither metadata, session nor facility.toml. "
        f"Give with `coldchain session set {session} {options}`."
    )
