"""A catalog with planted sessions, and pictures such as the pipeline leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
from PIL import Image

from coldchain.catalog import events, exposures, files, replicas, sessions, steps
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.policy import RetireRule
from coldchain.model.quality import Thresholds
from coldchain.model.results import CtfResult, MotionResult, Pick, PickResult, QualityResult, Step, StepResult
from coldchain.model.session import Exposure, ExposureState, Layout, Session, SessionParameters
from coldchain.preprocess.judge import Judge
from coldchain.web.app import create_app
from coldchain.web.server import BackgroundServer

STORES = ("archive", "scratch")
WIDTH, HEIGHT = 4096, 3072
BEGAN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOSTILE = "a b'c\"d\n<script>alert(1)</script>é\udcff"


@dataclass
class Facility:
    """An open catalog, a results folder, how many micrograph pixels make one of a picture, and how many exposures
    were planted."""

    catalog: Catalog
    results_root: Path
    reduction: int = 16
    planted: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def session(self, name: str = "apoferritin-04", **changes: object) -> Session:
        """A session on the instrument "krios-1"."""
        given = {
            "instrument_name": "krios-1",
            "source_root": "/camera",
            "folder": name.replace("\n", "_"),
            "layout": Layout.EPU,
            "project_name": "Ferritins",
            "owner_name": "Ada Nilsson",
            "owner_mail": "ada@example.org",
            "parameters": SessionParameters(Optics(pixel_size_angstrom=1.06), particle_diameter_angstrom=130.0),
        }
        return sessions.create(self.catalog, name=name, **(given | changes))

    def exposure(self, session: Session, *, name: str | None = None, square: str | None = None) -> Exposure:
        """An exposure whose movie has arrived, copied and verified on both stores; nothing computed yet."""
        self.planted += 1
        hole = str(9_000_000 + self.planted // 2)
        square = square or str(8_990_000 + self.planted // 12)
        taken = BEGAN + timedelta(seconds=41 * self.planted)
        stem = f"FoilHole_{hole}_Data_9017354_{self.planted}_{taken:%Y%m%d_%H%M%S}"
        name = name or f"Images-Disc1/GridSquare_{square}/Data/{stem}"
        made = exposures.ensure(self.catalog, session.id, name, grid_square=square, foil_hole=hole)
        exposures.attach_metadata(
            self.catalog,
            made.id,
            ExposureMetadata(
                optics=Optics(
                    pixel_size_angstrom=1.059,
                    voltage_kilovolt=300.0,
                    spherical_aberration_millimeter=2.7,
                    dose_e_per_square_angstrom=40.2,
                    frame_count=40,
                ),
                acquired_at=taken,
                applied_defocus_micrometer=-1.5,
                magnification=105000.0,
                detector="EF-Falcon",
                microscope="Titan Krios",
                stage_x_micrometer=-213.44,
                stage_y_micrometer=88.01,
                source="epu-xml",
            ),
        )
        self.file(session, f"{name}_fractions.tiff", exposure_id=made.id)
        return exposures.get(self.catalog, made.id)

    def file(
        self,
        session: Session,
        path: str,
        *,
        exposure_id: UUID | None = None,
        kind: FileKind = FileKind.MOVIE,
        state: FileState = FileState.ARRIVED,
        detail: str = "",
        copies: ReplicaState = ReplicaState.VERIFIED,
    ) -> UUID:
        """A file, with its copies in one state; a movie becomes its exposure's input."""
        arrived = files.record_arrival(
            self.catalog,
            session_id=session.id,
            relative_path=path,
            kind=kind,
            size_bytes=312_400_000 + self.planted,
            modified_ns=1,
            stores=STORES,
            exposure_id=exposure_id,
            state=state,
            detail=detail,
        )
        digest = f"{self.planted:064x}"
        for replica in replicas.of_file(self.catalog, arrived.id):
            if copies is ReplicaState.VERIFIED:
                files.set_digest(self.catalog, arrived.id, digest)
                level, sha256, why = VerificationLevel.MEDIUM, digest, ""
            else:
                level, sha256, why = None, None, "no space is left on the device"
            if copies is not ReplicaState.WANTED:
                replicas.record_copy(self.catalog, replica.id, state=copies, level=level, sha256=sha256, detail=why)
        if exposure_id is not None and kind is FileKind.MOVIE and state is FileState.ARRIVED:
            exposures.attach_input(self.catalog, exposure_id, arrived.id)
        return arrived.id

    def process(self, exposure: Exposure, *, trustworthy: bool = True) -> dict[Step, UUID]:
        """Every step done, with results and pictures."""
        exposures.set_state(self.catalog, exposure.id, ExposureState.PROCESSING)
        defocus = 14_000 + 4_000 * math.sin(self.planted / 5) + self.rng.normal(0, 400)
        picks = self.picks()
        runs = {
            Step.ALIGN: self.run(exposure, Step.ALIGN, self.motion()),
            Step.CTF: self.run(exposure, Step.CTF, self.ctf(defocus, trustworthy), self.ctf_outputs(defocus)),
            Step.PICK: self.run(exposure, Step.PICK, picks),
            Step.PREVIEW: self.run(exposure, Step.PREVIEW, None, self.preview_outputs(picks)),
            Step.QUALITY: self.run(exposure, Step.QUALITY, self.quality()),
        }
        done = {run.step: run for run in steps.done(self.catalog, exposure.id).values()}
        Judge(self.catalog, self.results_root, Thresholds()).settle(exposure, done)
        return runs

    def run(
        self,
        exposure: Exposure,
        step: Step,
        result: StepResult | None,
        outputs: dict[str, str] | None = None,
    ) -> UUID:
        """One done run."""
        parameters = {"pixel_size_angstrom": 1.06, "voltage_kilovolt": 300.0}
        begun = steps.begin(self.catalog, exposure.id, step, f"{step}-{new_id()}", parameters)
        steps.finish(self.catalog, begun.id, outputs=outputs or {}, seconds=1.25, result=result)
        return begun.id

    def motion(self) -> MotionResult:
        """A track that slows down."""
        frames = np.arange(40)
        decay = 1 - np.exp(-frames / 9)
        x = 22 * decay + np.cumsum(self.rng.normal(0, 0.25, 40))
        y = -9 * decay * (1 - decay / 3) + np.cumsum(self.rng.normal(0, 0.25, 40))
        x, y = x - x[0], y - y[0]
        lengths = np.hypot(np.diff(x), np.diff(y))
        return MotionResult(
            tuple(map(float, x)),
            tuple(map(float, y)),
            float(lengths.sum()),
            float(lengths[:4].sum()),
            float(lengths[4:].sum()),
            True,
        )

    def ctf(self, defocus: float, trustworthy: bool) -> CtfResult:
        """A fit, good or doubtful."""
        resolution = 3.4 + abs(self.rng.normal(0, 0.4)) if trustworthy else 9.5
        reason = "" if trustworthy else "only two zeros are seen"
        uncertainty = 55.0 if trustworthy else 900.0
        u, v = defocus + 90, defocus - 90
        return CtfResult(u, v, 47.0, 0.0, 0.31, resolution, 1.1, uncertainty, trustworthy, reason)

    def picks(self) -> PickResult:
        """Particles that do not overlap much."""
        grid = [(x, y) for x in range(70, 4030, 230) for y in range(70, 3000, 230)]
        shifts = self.rng.uniform(-60, 60, (len(grid), 2))
        merits = self.rng.uniform(3, 9, len(grid))
        chosen = self.rng.random(len(grid)) < 0.7
        picks = (
            Pick(float(x + dx), float(y + dy), float(merit))
            for (x, y), (dx, dy), merit, is_chosen in zip(grid, shifts, merits, chosen, strict=True)
            if is_chosen
        )
        return PickResult(130.0, tuple(picks))

    def quality(self) -> QualityResult:
        """Ice of some thickness."""
        thickness = abs(self.rng.normal(0.1, 0.06))
        return QualityResult(0.9 * math.exp(-thickness), 0.02)

    def folder(self) -> tuple[Path, str]:
        """A new folder for a run's outputs, and its path as the catalog gives it."""
        relative = f"runs/{new_id()}"
        folder = self.results_root / relative
        folder.mkdir(parents=True)
        return folder, relative

    def ctf_outputs(self, defocus: float) -> dict[str, str]:
        """The profile of a fit."""
        folder, relative = self.folder()
        frequency = np.linspace(1 / 40, 1 / 3, 300)
        phase = np.pi * 0.0197 * defocus * frequency**2
        fitted = np.sin(phase - 0.5 * np.pi * 2.7e7 * 0.0197**3 * frequency**4) ** 2
        envelope = np.exp(-((frequency / 0.22) ** 2))
        profile = {
            "frequency_per_angstrom": frequency,
            "measured": fitted * envelope + self.rng.normal(0.05, 0.03, 300),
            "fitted": fitted,
            "agreement": np.clip(1.1 * np.exp(-((frequency / 0.26) ** 4)), 0, 1),
        }
        text = json.dumps({name: np.round(values, 5).tolist() for name, values in profile.items()})
        (folder / "profile.json").write_text(text)
        return {"profile": f"{relative}/profile.json"}

    def preview_outputs(self, picks: PickResult) -> dict[str, str]:
        """Pictures whose particles lie where the picks say, row 0 at the top."""
        folder, relative = self.folder()
        width, height = WIDTH // self.reduction, HEIGHT // self.reduction
        scale = {"width_pixel": WIDTH, "height_pixel": HEIGHT, "png_width": width, "png_height": height}
        (folder / "scale.json").write_text(json.dumps(scale))
        picture = self.micrograph(picks, height, width)
        picture.save(folder / "micrograph.png")
        picture.resize((256, 192), Image.Resampling.BOX).save(folder / "thumbnail.png")
        self.spectrum().save(folder / "spectrum.png")
        names = {"micrograph_png": "micrograph", "thumbnail_png": "thumbnail", "spectrum_png": "spectrum"}
        outputs = {role: f"{relative}/{name}.png" for role, name in names.items()}
        return outputs | {"scale": f"{relative}/scale.json"}

    def micrograph(self, picks: PickResult, height: int, width: int) -> Image.Image:
        """Dark rings in noise, where the picks are."""
        image = self.rng.normal(150, 26, (height, width))
        size = round(72 / self.reduction)
        rows, columns = np.mgrid[-size : size + 1, -size : size + 1]
        ring = 60 * np.exp(-((np.hypot(rows, columns) * self.reduction - 44) ** 2) / 480)
        for pick in picks.picks:
            row, column = round(height - 1 - pick.y_pixel / self.reduction), round(pick.x_pixel / self.reduction)
            if size <= row < height - size and size <= column < width - size:
                image[row - size : row + size + 1, column - size : column + size + 1] -= ring
        return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))

    def spectrum(self) -> Image.Image:
        """Rings: noisy on the left, clean on the right."""
        axis = np.linspace(-0.3, 0.3, 256)
        k = np.hypot(axis[None, :], axis[:, None])
        rings = 0.5 - 0.5 * np.cos(2 * np.pi * 0.0197 * 13_000 * k**2)
        image = rings * np.exp(-((k / 0.22) ** 2)) + self.rng.normal(0.1, 0.12, k.shape) * (axis < 0)[None, :]
        return Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8))


def migrated_catalog(folder: Path) -> bytes:
    """The bytes of an empty catalog: copying them is quicker than migrating for every test."""
    upgrade(f"sqlite:///{folder / 'empty.sqlite'}")
    return (folder / "empty.sqlite").read_bytes()


def open_facility(folder: Path, migrated: bytes) -> Facility:
    """A new, empty catalog and results folder."""
    path = folder / "catalog.sqlite"
    path.write_bytes(migrated)
    results_root = folder / "results"
    results_root.mkdir()
    return Facility(open_catalog(f"sqlite:///{path}", "test-site"), results_root)


def plant_busy_session(facility: Facility, *, exposure_count: int) -> Session:
    """A session with something of everything: done, doubtful, quarantined, waiting, damaged, failed copies."""
    session = facility.session()
    for number in range(exposure_count):
        facility.process(facility.exposure(session), trustworthy=number % 9 != 4)
    broken = facility.exposure(session)
    run = steps.begin(facility.catalog, broken.id, Step.ALIGN, "key-of-a-failure", {"pixel_size_angstrom": 1.06})
    reason = "strip 17 of frame 3 cannot be decoded (LZW). Copy the movie from the camera again."
    steps.fail(facility.catalog, run.id, detail=reason, seconds=0.4)
    exposures.set_state(facility.catalog, broken.id, ExposureState.QUARANTINED, reason)
    for _ in range(3):
        waiting = facility.exposure(session)
        exposures.set_state(facility.catalog, waiting.id, ExposureState.WAITING, "the dose is not known")
    exposures.set_state(facility.catalog, facility.exposure(session).id, ExposureState.PROCESSING)
    facility.file(
        session,
        "Images-Disc1/GridSquare_8990001/Data/short_fractions.tiff",
        state=FileState.DAMAGED,
        detail="the file ends after 1,024 of 4,195,328 bytes",
        copies=ReplicaState.WANTED,
    )
    facility.file(session, "gain_20260302.tiff", kind=FileKind.GAIN, copies=ReplicaState.FAILED)
    for square in ("8990001", "8990077"):
        facility.file(
            session,
            f"Images-Disc1/GridSquare_{square}/FoilHoles/FoilHole_9{square[3:]}000_20260302_151151.jpg",
            kind=FileKind.PREVIEW,
        )
    events.record(facility.catalog, Severity.INFO, "service.started", "the facility runs", session_id=session.id)
    return session


@contextmanager
def served(
    facility: Facility, instrument_optics: dict[str, Optics] | None = None, retire_rules: Sequence[RetireRule] = ()
) -> Iterator[str]:
    """The facility's site, as a URL."""
    app = create_app(
        facility.catalog,
        results_root=facility.results_root,
        facility_name="Northern EM",
        instrument_optics=instrument_optics,
        retire_rules=retire_rules,
    )
    with BackgroundServer(app) as url:
        yield url
