"""The files of a Leginon session: frames, summed images, gain references and lists of defects, waited for and taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from coldchain.catalog import exposures
from coldchain.catalog.engine import Catalog
from coldchain.catalog.leginon.images import TABLE
from coldchain.collect.completeness import Timing
from coldchain.collect.defect_list import boxes_of, list_name, write_list
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget
from coldchain.collect.intake import Intake
from coldchain.collect.layout import Placement
from coldchain.collect.leginon_places import Home, frames_name, gain_homes, homes_of
from coldchain.collect.one_pass import RootPass, take_all
from coldchain.collect.one_session import OneSession
from coldchain.collect.path_map import PathMap
from coldchain.errors import FormatError, StorageError
from coldchain.formats.movie import probe_movie
from coldchain.model.files import FileKind
from coldchain.model.leginon import GainImage, LeginonImage, LeginonSession
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import Exposure, Layout, Session

_LISTS_FOLDER = "leginon"
_SCALES = (1, 2, 4, 8)
_PATIENCE_SECONDS = 5.0


class LeginonFiles:
    """What of a session's files is there, and what is still waited for.

    Parameters
    ----------
    catalog : where they are journalled.
    session : Leginon's session.
    target : the instrument with its roots, and the stores.
    path_map : Leginon's host's paths → this one's.
    report : counts them.
    """

    def __init__(
        self,
        catalog: Catalog,
        session: LeginonSession,
        *,
        target: ImportTarget,
        path_map: PathMap,
        report: ImportReport,
    ) -> None:
        self._catalog = catalog
        self._target = target
        self._map = path_map
        self._report = report
        self._frames, self._images = homes_of(session, path_map, target.roots)
        self._session: Session | None = None
        self._timing = Timing()
        self._intake: Intake | None = None
        self._roots: dict[tuple[Path, str], tuple[RootPass, dict[str, Placement]]] = {}
        self._wanted_frames: dict[int, LeginonImage] = {}
        self._wanted_images: dict[int, LeginonImage] = {}
        self._wanted_gains: dict[GainImage, None] = {}
        self._exposures: dict[int, UUID] = {}
        self._frame_sizes: dict[tuple[int, int, str], float] = {}
        self._scales: dict[int, float] = {}
        self._fitted_ids: set[int] = set()
        self._frame_names: frozenset[str] = frozenset()

    @property
    def homes(self) -> list[Home]:
        """The folders of the frames and of the images, the session's own first: that of the movie root, else one that
        is there, else the frames'."""
        homes = list(dict.fromkeys(home for home in (self._frames, self._images) if home is not None))
        in_root = [home for home in homes if home.root == self._target.movie_root]
        there = [home for home in homes if (home.root / home.folder).is_dir()]
        own = (in_root or there or homes)[0]
        return [own, *(home for home in homes if home != own)]

    def begin(self, session: Session, timing: Timing) -> None:
        """Take files for this session of the catalog from now on."""
        self._session, self._timing = session, timing

    def exposure_name(self, image: LeginonImage) -> str:
        """What an image's exposure is called: the path of its files in the session."""
        return self.homes[0].in_session(image.name)

    def refresh(self) -> None:
        """See anew which frames there are."""
        if self._frames is not None:
            self._frame_names = self._frames.names()

    def as_known(self, image: LeginonImage, exposure: Exposure | None) -> ExposureMetadata:
        """What is said of an exposure, by Leginon and by its frames, where they are there; where they are not any more,
        what they said stands. Raises CatalogError, StorageError."""
        name = frames_name(image.name, self._frame_names) if image.has_frames else None
        if name is not None and self._frames is not None:
            metadata = self._fitted(image, self._frames.root / self._frames.path(name))
            self._fitted_ids.add(image.id)
            return metadata
        known = None if exposure is None else exposure.metadata.optics.pixel_size_angstrom
        if known is None or exposure is None or exposure.input_file_id is None:
            return image.metadata
        return replace(image.metadata, optics=replace(image.metadata.optics, pixel_size_angstrom=known))

    def want(self, image: LeginonImage, exposure_id: UUID | None) -> None:
        """Wait for the files of an image; it has an exposure unless it is an overview or an aligned sum."""
        if exposure_id is not None:
            self._exposures[image.id] = exposure_id
        if image.has_frames and _is_exposure(image):
            self._wanted_frames[image.id] = image
            if image.gain is not None:
                self._wanted_gains.setdefault(image.gain)
        if image.file_name:
            self._wanted_images[image.id] = image

    def look(self, *, take: bool) -> None:
        """See which of the files that are waited for are there by now, and with `take` have them taken.

        Raises CatalogError, StorageError.
        """
        self.refresh()
        if self._wanted_gains:
            self._look_for_gains(take=take)
        if self._frames is not None and self._wanted_frames:
            self._look_for_frames(self._frames, take=take)
        if self._images is not None and self._wanted_images:
            self._look_for_images(self._images, take=take)
        self._report.awaited_frames = len(self._wanted_frames)
        self._report.awaited_images = len(self._wanted_images)
        self._report.awaited_gains = sorted(gain.name for gain in self._wanted_gains)

    def take_all(self, advance: Callable[[str], None]) -> None:
        """Take what is there, waiting only until it has stood still."""
        passes = [root for root, _ in self._roots.values()]
        take_all(passes, seconds=self._timing.settle_seconds + _PATIENCE_SECONDS, advance=advance)

    def take_due(self, advance: Callable[[str], None]) -> None:
        """Take what has stood still by now; the rest is waited for."""
        for root, _ in list(self._roots.values()):
            root.take_due(give_up=False, advance=advance)

    def scale(self, image_id: int) -> float:
        """How many pixels of the frames one pixel of an image is along a side, as far as that is known."""
        return self._scales.get(image_id, 1.0)

    # -- looking ----------------------------------------------------------------------------------------------------

    def _look_for_frames(self, home: Home, *, take: bool) -> None:
        offered, found = [], []
        for image in list(self._wanted_frames.values()):
            name = frames_name(image.name, self._frame_names)
            if name is None:
                continue
            if take:
                if image.id not in self._fitted_ids:  # they came after the image was entered
                    metadata = self._fitted(image, home.root / home.path(name))
                    exposures.attach_metadata(self._catalog, self._exposures[image.id], metadata)
                    self._fitted_ids.add(image.id)
                offered.append((name, self._placement(image, home, name, FileKind.MOVIE)))
            found.append(image.id)
        self._offer(home, offered)
        self._forget(self._wanted_frames, found)

    def _look_for_images(self, home: Home, *, take: bool) -> None:
        names = home.names()
        found = [image for image in self._wanted_images.values() if image.file_name in names]
        if take:
            kinds = [FileKind.MICROGRAPH if _is_exposure(image) else FileKind.PREVIEW for image in found]
            self._offer(
                home,
                [
                    (image.file_name, self._placement(image, home, image.file_name, kind))
                    for image, kind in zip(found, kinds, strict=True)
                ],
            )
        self._forget(self._wanted_images, [image.id for image in found])

    def _look_for_gains(self, *, take: bool) -> None:
        for gain in list(self._wanted_gains):
            for home in gain_homes(gain, self._map, self.homes):
                if gain.name not in home.names():
                    continue
                if take:
                    inside = home.in_session(gain.name)
                    self._offer(home, [(gain.name, Placement(home.folder, Layout.LEGINON, inside, FileKind.GAIN))])
                del self._wanted_gains[gain]
                break

    @staticmethod
    def _forget(wanted: dict[int, LeginonImage], ids: Iterable[int]) -> None:
        """What was offered is not waited for; not before, so that a catalog that balks loses nothing."""
        for image_id in ids:
            del wanted[image_id]

    def _placement(self, image: LeginonImage, home: Home, name: str, kind: FileKind) -> Placement:
        exposure = None if kind is FileKind.PREVIEW else self.exposure_name(image)
        inside = home.in_session(name)
        return Placement(home.folder, Layout.LEGINON, inside, kind, exposure, image.grid_square, image.foil_hole)

    # -- taking -----------------------------------------------------------------------------------------------------

    def _offer(self, home: Home, files: Iterable[tuple[str, Placement]]) -> None:
        """Have files of a home taken, by their names; each is told where it belongs."""
        seen = []
        for name, placement in files:
            root, told = self._root(home)
            path = home.path(name)
            told[path] = placement
            if (sighting := root.look(path)) is not None:
                seen.append(sighting)
        if seen:
            self._root(home)[0].see(seen)

    def _root(self, home: Home) -> tuple[RootPass, dict[str, Placement]]:
        """What takes the files of a home, and where their placements are told."""
        key = home.root, home.folder
        if key not in self._roots:
            assert self._session is not None
            told: dict[str, Placement] = {}
            roster = OneSession(self._catalog, self._session, root=home.root, folder=home.folder, told=told)
            if self._intake is None:
                intake = self._intake = Intake(
                    self._catalog,
                    instrument_name=self._target.instrument_name,
                    source_root=home.root,
                    copies=self._target.copies,
                    roster=roster,
                )
            else:
                intake = self._intake.beside(home.root, roster=roster)
            self._roots[key] = RootPass(home.root, intake, timing=self._timing, told=self._report.files), told
        return self._roots[key]

    # -- frames of another size than their sum ------------------------------------------------------------------------

    def _fitted(self, image: LeginonImage, path: Path) -> ExposureMetadata:
        """What Leginon says of an image, with the pixel size of its frames, which may be finer than their sum's, and
        the list of defects for them."""
        scale = self._scales[image.id] = self._scale(image, path)
        metadata = image.metadata
        size = metadata.optics.pixel_size_angstrom
        if size is not None and scale != 1.0:
            metadata = replace(metadata, optics=replace(metadata.optics, pixel_size_angstrom=size / scale))
        listed = self._defect_list(image, scale)
        return metadata if listed is None else replace(metadata, defects_name=listed)

    def _scale(self, image: LeginonImage, path: Path) -> float:
        """How many pixels of the frames one pixel of the summed image is along a side: super-resolution frames have
        two. 1 where that cannot be told."""
        camera = image.camera
        key = camera.width, camera.height, path.suffix
        if not camera.width or key in self._frame_sizes:
            return self._frame_sizes.get(key, 1.0)
        try:
            info = probe_movie(path, whole=False)
        except (FormatError, StorageError):  # whoever takes it says what is wrong with it
            return 1.0
        scale = scale_of((info.width, info.height), (camera.width, camera.height))
        if math.isnan(scale):
            scale = 1.0
            words = (
                f"its frames have {info.width} × {info.height} pixels and its image {camera.width} × {camera.height}: "
                "the pixel size is taken to be the same"
            )
            self._report.complain(TABLE, image.id, image.name, words)
        self._frame_sizes[key] = scale
        return scale

    def _defect_list(self, image: LeginonImage, scale: float) -> str | None:
        """The path in the session of the list that an exposure's correction plan makes, once it is written."""
        if image.plan is None or scale not in _SCALES:
            return None
        assert self._session is not None
        name = list_name(image.plan, image.camera, int(scale))
        home = Home(self._target.results_root / _LISTS_FOLDER, str(self._session.id), "references/")
        path = home.path(name)
        if not (home.root / path).is_file() or path not in self._root(home)[1]:
            try:
                write_list(home.root / path, boxes_of(image.plan, image.camera, int(scale)))
            except OSError as error:
                found = f"the list of defects cannot be written ({error.strerror})"
                raise StorageError(found, remedy="Check the results' folder", path=home.root / path) from error
            inside = home.in_session(name)
            self._offer(home, [(name, Placement(home.folder, Layout.LEGINON, inside, FileKind.DEFECTS))])
        return home.in_session(name)


def scale_of(frame: tuple[int, int], image: tuple[int, int]) -> float:
    """How many times as many pixels a frame has along each side as an image, turned or not; NaN where the two are no
    whole multiple of each other. Pure."""
    for width, height in (image, image[::-1]):
        scale = frame[0] / width
        if scale == frame[1] / height and (scale in _SCALES or 1 / scale in _SCALES):
            return scale
    return math.nan


def _is_exposure(image: LeginonImage) -> bool:
    return not image.is_overview and image.derived_from is None
