"""The driver: takes ready exposures, newest first, through their steps.

It holds nothing that matters. A step is journalled in the catalog before it runs; whatever kills this process, a
restart finds the exposure unfinished and the step's key not done, and goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from coldchain.catalog import events, exposures, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.compute.engine import Engine
from coldchain.errors import CatalogError, ProcessingError
from coldchain.model.events import Severity
from coldchain.model.files import FileKind
from coldchain.model.optics import Optics
from coldchain.model.results import Step, StepRun, StepState
from coldchain.model.session import Exposure, ExposureState, Session
from coldchain.preprocess.plan import PipelineParameters, StepPlan, missing_values, next_step
from coldchain.preprocess.sources import ExposureSources, SourceFinder
from coldchain.preprocess.steps import StepJob, StepOutcome, run_step
from coldchain.preprocess.verdict import after_failure

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
HOLD_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class _InFlight:
    exposure: Exposure
    run: StepRun
    folder: Path
    future: Future[StepOutcome]
    began: float


class Pipeline:
    """Runs the steps of ready exposures on an engine, from a thread of its own."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        *,
        results_root: Path,
        parameters: PipelineParameters,
        instrument_optics: Mapping[str, Optics],
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._results_root = results_root
        self._parameters = parameters
        self._sources = SourceFinder(catalog, instrument_optics)
        self._in_flight: dict[UUID, _InFlight] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._held_until = 0.0
        self._ticking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pipeline")

    def start(self) -> None:
        """Take up what an earlier process left running, then begin."""
        interrupted = steps.interrupt_running(self._catalog)
        if interrupted:
            log.info("taking up %d interrupted step(s) again", interrupted)
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
        try:
            with self._ticking:
                self._tick()
        except CatalogError as error:
            # The database is locked, full or away: nothing is lost, the steps in hand are recorded when it is back.
            log.warning("%s", error)

    def _tick(self) -> None:
        """Record what has finished, and start what there is room for."""
        for flight in [f for f in self._in_flight.values() if f.future.done()]:
            self._record(flight)
        room = self._engine.slots - len(self._in_flight)
        if room > 0 and not self._stopping.is_set() and time.monotonic() >= self._held_until:
            found = exposures.ready(self._catalog, room + len(self._in_flight))
            for exposure in [exposure for exposure in found if exposure.id not in self._in_flight][:room]:
                self._advance(exposure.id)

    def _record(self, flight: _InFlight) -> None:
        error = flight.future.exception()
        if error is None:
            self._record_success(flight, flight.future.result())
        else:
            self._record_failure(flight, error)
        del self._in_flight[flight.exposure.id]
        if error is None and not self._stopping.is_set():
            self._advance(flight.exposure.id)
        elif error is None:
            exposures.set_state(
                self._catalog, flight.exposure.id, ExposureState.READY, only_from=ExposureState.PROCESSING
            )

    def _record_success(self, flight: _InFlight, outcome: StepOutcome) -> None:
        relative = flight.folder.relative_to(self._results_root)
        outputs = {role: str(relative / name) for role, name in outcome.outputs.items()}
        steps.finish(self._catalog, flight.run.id, outputs=outputs, seconds=outcome.seconds, result=outcome.result)
        for warning in outcome.warnings:
            self._warn(f"{flight.run.step}.warning", f"{flight.exposure.name}: {warning}", flight.exposure)

    def _record_failure(self, flight: _InFlight, error: BaseException) -> None:
        seconds = time.monotonic() - flight.began
        steps.fail(self._catalog, flight.run.id, detail=str(error), seconds=seconds)
        runs = steps.runs_of(self._catalog, flight.exposure.id)
        failures = sum(run.key == flight.run.key and run.state is StepState.FAILED for run in runs)
        verdict = after_failure(error, failures, self._parameters.attempts)
        if verdict.hold:
            self._held_until = time.monotonic() + HOLD_SECONDS
        self._settle(flight.exposure.id, verdict.state, verdict.reason)
        if verdict.state is not ExposureState.QUARANTINED:
            self._warn(f"{flight.run.step}.failed", verdict.reason, flight.exposure)
        log.warning("%s of %s failed: %s", flight.run.step, flight.exposure.name, verdict.reason)

    def _warn(self, kind: str, message: str, exposure: Exposure) -> None:
        events.record(
            self._catalog,
            Severity.WARNING,
            kind,
            message,
            session_id=exposure.session_id,
            exposure_id=exposure.id,
        )

    def _advance(self, exposure_id: UUID) -> None:
        """Start the exposure's next step, or say what it waits for, or that it is done.

        It is claimed before its session is read: a parameter that changes from here on makes it ready again, and what
        is decided here then no longer counts.
        """
        exposures.set_state(self._catalog, exposure_id, ExposureState.PROCESSING)
        exposure = exposures.get(self._catalog, exposure_id)
        session = sessions.get(self._catalog, exposure.session_id)
        try:
            sources = self._sources.find(exposure, session)
        except (ProcessingError, OSError) as error:
            self._settle(exposure_id, ExposureState.WAITING, str(error))
            return
        lacking = missing_values(sources.file.kind, sources.optics)
        if lacking:
            self._settle(exposure_id, ExposureState.WAITING, _lacking(lacking, session.shell_word))
            return
        plan = next_step(sources.given, self._parameters, steps.done(self._catalog, exposure.id))
        if plan is None:
            self._settle(exposure_id, ExposureState.DONE)
        else:
            self._begin(exposure, session, sources, plan)

    def _settle(self, exposure_id: UUID, state: ExposureState, reason: str = "") -> None:
        exposures.set_state(self._catalog, exposure_id, state, reason, only_from=ExposureState.PROCESSING)

    def _begin(self, exposure: Exposure, session: Session, sources: ExposureSources, plan: StepPlan) -> None:
        if plan.step is Step.ALIGN:
            for warning in sources.warnings:
                self._warn(f"{plan.step}.warning", f"{exposure.name}: {warning}", exposure)
        run = steps.begin(self._catalog, exposure.id, plan.step, plan.key, plan.parameters)
        began = time.monotonic()
        parent = self._results_root / session.instrument.name / session.folder / exposure.name
        folder = parent / f"{plan.step}-{plan.key[:16]}"
        job = StepJob(
            step=plan.step,
            inputs=self._inputs(sources, plan),
            parameters=plan.parameters,
            folder=folder,
            scratch=parent / f".{plan.step}-{run.id}.part",
            threads=self._parameters.threads,
        )
        future = self._engine.submit(run_step, job)
        self._in_flight[exposure.id] = _InFlight(exposure, run, folder, future, began)
        future.add_done_callback(lambda _: self._wake.set())

    def _inputs(self, sources: ExposureSources, plan: StepPlan) -> dict[str, Path]:
        """The files that a step reads: CTF the sum without dose weighting, the picker and the eye that with it."""
        if plan.step is Step.ALIGN:
            references = {"gain": sources.gain, "defects": sources.defects}
            return {"movie": sources.movie} | {role: path for role, path in references.items() if path is not None}
        if sources.file.kind is FileKind.MOVIE:
            aligned = plan.upstream[Step.ALIGN].outputs
            image = self._results_root / aligned["unweighted" if plan.step is Step.CTF else "micrograph"]
        else:
            image = sources.movie
        spectrum = plan.upstream[Step.CTF].outputs.get("diagnostic") if plan.step is Step.PREVIEW else None
        return {"image": image} | ({"diagnostic": self._results_root / spectrum} if spectrum else {})


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
    options = " ".join(f"{_OPTIONS[value]} …" for value in values)
    return (
        f"{' and '.join(values)} {verb} not known, from neither metadata, session nor facility.toml. "
        f"Give with `coldchain session set {session} {options}`."
    )
