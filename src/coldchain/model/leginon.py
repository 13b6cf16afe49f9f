"""What a Leginon database says of its sessions, and what Appion made of them, in this house's units and words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coldchain.model.optics import ExposureMetadata
from coldchain.model.results import CtfResult, PickResult, Step


@dataclass(frozen=True, slots=True)
class LeginonSession:
    """A session of Leginon's. Its paths are those of Leginon's own host.

    `frame_path` is "" where Leginon neither says it nor has a path of images that it could be told from. `images` is
    how many images it has, of any kind.
    """

    id: int
    name: str
    created_at: datetime | None
    comment: str
    image_path: str
    frame_path: str
    owner_name: str
    owner_mail: str
    project_id: int | None
    project: str
    images: int


@dataclass(frozen=True, slots=True)
class CorrectionPlan:
    """The bad rows, columns and pixels (x, y) of a camera of `width` × `height` pixels, as its summed images lie: 0 is
    the first stored row or column."""

    id: int
    width: int
    height: int
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    pixels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CameraState:
    """How a camera's image was read out: its size in pixels, and how the frames lie against it.

    Frames were turned by `frame_quarter_turns` times 90° and, with `frame_flip`, turned upside down.
    """

    width: int = 0
    height: int = 0
    frame_quarter_turns: int = 0
    frame_flip: bool = False
    is_eer: bool = False


@dataclass(frozen=True, slots=True)
class GainImage:
    """The reference by which frames are multiplied: a file in a folder of Leginon's own host."""

    folder: str
    name: str


@dataclass(frozen=True, slots=True)
class LeginonImage:
    """One image of a session.

    `name` is its file's without suffixes, `file_name` that of the summed image. `is_overview`: it shows where, or where
    to focus, and not what; `derived_from` names the image that it is an aligned sum of. `has_frames`: the camera was to
    save them. `metadata` has the pixel size of the summed image. `complaints` are what its rows say and cannot be.
    """

    id: int
    name: str
    file_name: str
    metadata: ExposureMetadata
    camera: CameraState = CameraState()
    is_overview: bool = False
    derived_from: str | None = None
    has_frames: bool = False
    grid_square: str | None = None
    foil_hole: str | None = None
    gain: GainImage | None = None
    plan: CorrectionPlan | None = None
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that cannot be used at all, and why."""

    table: str
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class ForeignResult:
    """A result that another program had found. `image_id` is Leginon's; picks are in pixels of that image.

    `parameters` say which program, run and rows it is from; equal ones are the same result.
    """

    image_id: int
    step: Step
    found_at: datetime | None
    parameters: dict[str, object]
    words: str
    result: CtfResult | PickResult
