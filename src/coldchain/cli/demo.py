"""`coldchain demo`: a simulated microscope through everything, and the page at the end."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from coldchain import config
from coldchain.catalog import exposures, files, replicas, results, sessions
from coldchain.catalog.engine import Catalog, upgrade
from coldchain.cli.console import output, plain, within
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.site import site
from coldchain.config import OpticsSection, Settings
from coldchain.errors import ColdchainError, UsageError
from coldchain.model import limits
from coldchain.model.files import ReplicaState
from coldchain.model.results import ExposureResults
from coldchain.model.session import Exposure, ExposureState
from coldchain.service import Facility
from coldchain.simulate.plan import SessionPlan
from coldchain.simulate.scoring import Check, score
from coldchain.simulate.session import simulate_session
from coldchain.simulate.specimen import Specimen, load_specimen
from coldchain.simulate.truth import MovieParameters, SessionTruth

app = typer.Typer(add_completion=False)

DEADLINE_SECONDS = 30 * 60.0
_LOOK_SECONDS = 0.2
_SCAN_SECONDS = 2.0
# A scan that finds nothing lies in between.
_STILL_SECONDS = 1.5 * _SCAN_SECONDS
_SEED = 2012
_SIDE_PIXEL = 2048


@dataclass(frozen=True, slots=True)
class _Progress:
    """The bars that the demo shows. A bar's total grows as more arrives."""

    bars: Progress
    written: TaskID | None
    verified: TaskID
    processed: TaskID


@app.command()
def demo(
    input_folder: Annotated[
        Path | None, typer.Option("--input", help="Your own files instead: a camera folder, or one file. Only read.")
    ] = None,
    exposures_wanted: Annotated[int, typer.Option("--exposures", min=1, help="How many to simulate.")] = 6,
    folder: Annotated[Path | None, typer.Option("--folder", help="Keep the facility here [temporary].")] = None,
    pixel_size: Annotated[float | None, typer.Option("--pixel-size", help="Å, where your files do not say.")] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", help="kV, where your files do not say.")] = None,
    dose: Annotated[
        float | None, typer.Option("--dose", help="e⁻/Å² an exposure, where your files do not say.")
    ] = None,
    diameter: Annotated[float | None, typer.Option("--diameter", help="Particle diameter in Å [estimated].")] = None,
    structure: Annotated[
        Path | None, typer.Option("--structure", help="Simulate this PDB or mmCIF file [a generated particle].")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Of the page; 0 takes a free one.")] = 0,
) -> None:
    """A short session before your eyes: taken, copied twice, verified, aligned, fitted, picked, shown on a page.

    Ends with a table of what was planted against what was found, and status 1 if anything was not recovered. On a
    terminal the page then stays up until Ctrl-C.

    Example: coldchain demo --exposures 4
    """
    logging.basicConfig(level=logging.ERROR)
    with _facility_folder(folder) as root, stop_on_signals() as stopping:
        optics = OpticsSection(
            pixel_size_angstrom=within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å"),
            voltage_kilovolt=within("--voltage", voltage, limits.VOLTAGE_KILOVOLT, "kV"),
            dose_e_per_square_angstrom=within("--dose", dose, limits.DOSE_E_PER_SQUARE_ANGSTROM, "e⁻/Å²"),
        )
        diameter = within("--diameter", diameter, limits.PARTICLE_DIAMETER_ANGSTROM, "Å")
        specimen = load_specimen(structure, seed=_SEED) if input_folder is None else None
        known = diameter or (specimen.diameter_angstrom if specimen else None)
        settings = _settings(root, input_folder, optics, known, port)
        facility = Facility(settings)
        facility.start()
        try:
            with site(facility.catalog, settings) as url:
                output.print(f"A facility in {root}. Its page: {url}", highlight=False, markup=False)
                short = (
                    _simulated(facility, exposures_wanted, specimen, stopping)
                    if specimen is not None
                    else _own_files(facility, stopping)
                )
                if sys.stdout.isatty() and not stopping.is_set():
                    output.print(f"The page stays up: {url}  (Ctrl-C ends)", highlight=False, markup=False)
                    stopping.wait()
        finally:
            facility.stop()
    if short:
        raise ColdchainError(short, remedy="See the table; --pixel-size, --voltage and --dose say what files do not")


@contextmanager
def _facility_folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        if any(wanted.iterdir()):
            raise UsageError("the folder is not empty", remedy="Name one that is, or none.", path=wanted)
        yield wanted.resolve()
        return
    root = Path(tempfile.mkdtemp(prefix="coldchain-demo-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _settings(root: Path, given: Path | None, optics: OpticsSection, diameter: float | None, port: int) -> Settings:
    """A facility as `coldchain init` would write it, with quicker eyes: a demonstration is looked at."""
    movie_root = root / "camera" if given is None or given.is_file() else given.resolve()
    for name in ("camera", "stores/live", "stores/archive"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if given is not None and not given.exists():
        raise UsageError("there is no such file or folder", remedy="Name a camera folder or a movie.", path=given)
    if given is not None and given.is_file():
        shutil.copy2(given, movie_root / given.name)
    text = config.template(
        {"name": "Demonstration", "movie_root": str(movie_root), "live": "stores/live", "archive": "stores/archive"}
    )
    path = root / config.FILE_NAME
    path.write_text(text, encoding="utf-8")
    settings = config.load(path)
    instrument = settings.instrument[0].model_copy(
        update={"optics": optics, "settle_seconds": 1.0, "scan_seconds": _SCAN_SECONDS, "patience_seconds": 10.0}
    )
    upgrade(settings.catalog.url)
    return settings.model_copy(
        update={
            "instrument": (instrument,),
            "web": settings.web.model_copy(update={"port": port}),
            "pipeline": settings.pipeline.model_copy(update={"particle_diameter_angstrom": diameter}),
        }
    )


def _simulated(facility: Facility, count: int, specimen: Specimen, stopping: threading.Event) -> str:
    """Simulate a session into the camera's folder, wait until it is through, and tell planted from found."""
    root = facility.settings.instrument[0].movie_root / "demo-session"
    movie = MovieParameters(width=_SIDE_PIXEL, height=_SIDE_PIXEL, gain=True, defects=True)
    plan = SessionPlan(exposures=count, seconds_to_write=1.0, movie=movie, seed=_SEED)
    with _bars() as bars, ThreadPoolExecutor(1, thread_name_prefix="microscope") as microscope:
        written = bars.add_task("the microscope writes movies", total=count)

        def advance(done: int, total: int) -> None:
            bars.update(written, completed=done, total=total)

        taken = microscope.submit(
            simulate_session,
            plan,
            root,
            specimen=specimen,
            truth_path=facility.settings.origin.with_name("truth.json"),
            progress=advance,
            stopping=stopping,
        )
        progress = _Progress(bars, written, bars.add_task("verified copies"), bars.add_task("exposures computed"))
        _wait_until_through(facility, progress, taken, stopping)
    recovered = _tell_recovered(facility.catalog, taken.result())
    return "" if recovered else "not every planted value was recovered"


def _own_files(facility: Facility, stopping: threading.Event) -> str:
    with _bars() as bars:
        progress = _Progress(bars, None, bars.add_task("verified copies"), bars.add_task("exposures computed"))
        _wait_until_through(facility, progress, None, stopping)
    return "" if _tell_found(facility.catalog) else "not every exposure was computed"


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:30}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=output
    )


def _wait_until_through(
    facility: Facility, progress: _Progress, taken: Future[SessionTruth] | None, stopping: threading.Event
) -> None:
    """Until everything that was taken is copied, verified and computed, or has said why not."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    still_since: float | None = None
    while not stopping.wait(_LOOK_SECONDS):
        facility.check()
        now = time.monotonic()
        still = (taken is None or taken.done()) and facility.idle()
        still_since = (still_since or now) if still else None
        _look(facility.catalog, progress)
        if still_since is not None and now - still_since >= _STILL_SECONDS:
            return
        if now > deadline:
            raise ColdchainError(
                f"not through after {DEADLINE_SECONDS / 60:.0f} minutes",
                remedy="Look at the page for what it waits for.",
            )
    raise KeyboardInterrupt


def _look(catalog: Catalog, progress: _Progress) -> None:
    """Bring the bars up to date with the catalog."""
    counts = [sessions.counts(catalog, session.id) for session in sessions.list_all(catalog)]
    verified, arrived = sum(c.files_verified for c in counts), sum(c.files_arrived for c in counts)
    ended, found = sum(c.processed + c.quarantined for c in counts), sum(c.exposures for c in counts)
    progress.bars.update(progress.verified, completed=verified, total=arrived or None)
    progress.bars.update(progress.processed, completed=ended, total=found or None)


def _tell_recovered(catalog: Catalog, truth: SessionTruth) -> bool:
    """Print the table of planted against found; True where everything was recovered."""
    table = Table("#", "what", "planted", "found", "error", "at most", "recovered", title="Planted and found")
    session = sessions.list_all(catalog)[0]
    recovered = True
    for number, planted in enumerate(truth.exposures, start=1):
        exposure = exposures.by_name(catalog, session.id, planted.name)
        checks = score(planted.movie, ExposureResults() if exposure is None else results.newest(catalog, exposure.id))
        copies = 0 if exposure is None else _verified_copies(catalog, exposure)
        checks.append(Check("verified copies", "2", str(copies), 2 - copies, 0, copies == 2))
        for row, check in enumerate(checks):
            recovered &= check.recovered
            table.add_row(
                str(number) if row == 0 else "",
                check.name,
                check.planted,
                check.found,
                f"{check.error:.3g}",
                f"{check.tolerance:.3g}",
                "yes" if check.recovered else "[bold red]NO[/]",
                end_section=row == len(checks) - 1,
            )
    output.print(table)
    verdict = "Every planted value was recovered." if recovered else "Not every planted value was recovered."
    output.print(f"{len(truth.exposures)} exposures. {verdict}", highlight=False)
    return recovered


def _verified_copies(catalog: Catalog, exposure: Exposure) -> int:
    """How many stores hold a verified copy of the exposure's input whose digest is the file's own."""
    if exposure.input_file_id is None:
        return 0
    file = files.get(catalog, exposure.input_file_id)
    copies = replicas.of_file(catalog, file.id)
    return sum(replica.state is ReplicaState.VERIFIED and replica.sha256 == file.sha256 for replica in copies)


def _tell_found(catalog: Catalog) -> bool:
    """Print what was found in the user's own files; True where every exposure was computed."""
    table = Table("exposure", "defocus U / V, Å", "to, Å", "trusted", "motion, Å", "picks", title="Found")
    said = []
    for session in sessions.list_all(catalog):
        for exposure in exposures.page(catalog, session.id, limit=200, before=None):
            found = results.newest(catalog, exposure.id)
            ctf = found.ctf
            table.add_row(
                plain(exposure.name),
                f"{ctf.defocus_u_angstrom:.0f} / {ctf.defocus_v_angstrom:.0f}" if ctf else "",
                f"{ctf.fit_resolution_angstrom:.1f}" if ctf else "",
                ("yes" if ctf.trustworthy else "no") if ctf else "",
                f"{found.motion.total_motion_angstrom:.1f}" if found.motion else "",
                str(len(found.picks.picks)) if found.picks else "",
            )
            if exposure.state is not ExposureState.DONE:
                said.append(f"{exposure.name} is {exposure.state}: {exposure.reason}")
    output.print(table)
    for line in said:
        output.print(plain(line))
    return not said
