"""A camera's correction plan → the list of defects that belongs to its frames. Pure, but for the writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from coldchain.model.leginon import CameraState, CorrectionPlan

Box = tuple[int, int, int, int]
"""First column and row, and how many of each: what RELION's list has in a line, rows from an MRC's first."""


def boxes_of(plan: CorrectionPlan, camera: CameraState, scale: int) -> list[Box]:
    """The plan's defects in frames that have `scale` times the pixels of the plan's image along each side.

    Frames lie as the image does, turned by `frame_quarter_turns` times 90° and then, with `frame_flip`, turned upside
    down; the plan is turned back, in the other order: by quarter turns the other way, then upside down, as Appion does.
    """
    found = []
    for box in _plain(plan):
        width, height = plan.width, plan.height
        for _ in range((4 - camera.frame_quarter_turns) % 4):
            box, width, height = _turned(box, width), height, width
        if camera.frame_flip:
            box = (box[0], height - box[1] - box[3], box[2], box[3])
        found.append((box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale))
    return found


def list_name(plan: CorrectionPlan, camera: CameraState, scale: int) -> str:
    """What the list is called: plans, cameras and frames that differ have lists of different names."""
    turned = f"_turned{camera.frame_quarter_turns}" if camera.frame_quarter_turns else ""
    flipped = "_flipped" if camera.frame_flip else ""
    scaled = f"_times{scale}" if scale != 1 else ""
    return f"defect_plan{plan.id}_{plan.width}x{plan.height}{turned}{flipped}{scaled}.txt"


def write_list(path: Path, boxes: list[Box]) -> None:
    """Write the list, whole or not at all, if it is not there already. Raises OSError."""
    content = "".join(f"{x}\t{y}\t{width}\t{height}\n" for x, y, width, height in boxes).encode("ascii")
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _plain(plan: CorrectionPlan) -> Iterator[Box]:
    yield from ((column, 0, 1, plan.height) for column in sorted(set(plan.columns)))
    yield from ((0, row, plan.width, 1) for row in sorted(set(plan.rows)))
    yield from ((x, y, 1, 1) for x, y in sorted(set(plan.pixels)))


def _turned(box: Box, width: int) -> Box:
    """The box after `numpy.rot90` of an array of `width` columns: what was at [y, x] is at [width − 1 − x, y]."""
    x, y, columns, rows = box
    return (y, width - x - columns, rows, columns)
