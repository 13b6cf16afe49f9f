"""`coldchain align`: movies to micrographs, without a facility."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from coldchain.cli.console import within
from coldchain.cli.outcomes import refuse_equal_names, results_folder, tell_as_json, tell_as_lines
from coldchain.errors import UsageError
from coldchain.model import limits
from coldchain.preprocess.exposure import Stated
from coldchain.preprocess.output_names import check_names
from coldchain.preprocess.report import Report
from coldchain.preprocess.series import Asked, align_all
from coldchain.preprocess.wishes import FramesWanted, Lens, Wishes

app = typer.Typer(add_completion=False)

_AUTO, _NONE = "auto", "none"
_MOVIES = "movies"
_GRID = re.compile(r"([0-9]{1,2})[xX×]([0-9]{1,2})")
LARGEST_GRID = 64  # the kernels' own, which take long to import
_BINNING = (1.0, 16.0)
_COUNTS_PER_ELECTRON = (1e-3, 1e6)
_PRE_EXPOSURE_E_PER_SQUARE_ANGSTROM = (0.0, limits.DOSE_E_PER_SQUARE_ANGSTROM[1])
_SPHERICAL_ABERRATION_MILLIMETER = (0.0, 20.0)
_DOSE_UNIT = "e⁻/Å²"


@app.command()
def align(
    movies: Annotated[
        list[Path], typer.Argument(metavar="MOVIE…", help="TIFF, MRC, EER, or a text that names one file a frame.")
    ],
    gain: Annotated[
        str | None, typer.Option("--gain", metavar="FILE", help="Or 'none' [the one that the mdoc names].")
    ] = None,
    gain_auto: Annotated[
        bool, typer.Option("--gain-auto", help="Turn, flip or invert a gain reference that fits only so.")
    ] = False,
    defects: Annotated[
        Path | None, typer.Option("--defects", metavar="FILE", help="Text or mask [the one that the mdoc names].")
    ] = None,
    dark: Annotated[
        Path | None, typer.Option("--dark", metavar="FILE", help="Subtracted before the gain: integrating cameras.")
    ] = None,
    counts_per_electron: Annotated[
        float | None, typer.Option("--counts-per-electron", help="Of an integrating camera [with --dark, the mdoc's].")
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", help="Å, of the frames as stored; of an EER, of the sensor's pixel.")
    ] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", help="kV.")] = None,
    dose_per_frame: Annotated[
        float | None,
        typer.Option(
            "--dose-per-frame",
            help="e⁻/Å² of a frame as read: of an EER, a fraction, or with --eer-dose a frame of the camera.",
        ),
    ] = None,
    pre_exposure: Annotated[float, typer.Option("--pre-exposure", help="e⁻/Å² before the movie's first frame.")] = 0.0,
    patches: Annotated[str, typer.Option("--patches", help="auto, or COLSxROWS; 1x1: whole frames only.")] = _AUTO,
    bin_factor: Annotated[float, typer.Option("--bin", help="Pixel of the sums over that of the frames.")] = 1.0,
    first: Annotated[int, typer.Option("--first", min=1, help="The first frame that is used, from 1.")] = 1,
    last: Annotated[int | None, typer.Option("--last", min=1, help="The last one [the last].")] = None,
    eer_fractions: Annotated[
        int | None, typer.Option("--eer-fractions", min=1, help="About how many frames an EER is rendered to [40].")
    ] = None,
    eer_dose: Annotated[
        float | None,
        typer.Option(
            "--eer-dose", help="e⁻/Å² of a rendered frame, instead; needs the dose, of metadata or --dose-per-frame."
        ),
    ] = None,
    eer_upsampling: Annotated[
        int, typer.Option("--eer-upsampling", min=1, max=2, help="1: the sensor's pixels, 2: halves of them.")
    ] = 1,
    halves: Annotated[bool, typer.Option("--halves", help="Also the sums of the even and of the odd frames.")] = False,
    no_dose_weighting: Annotated[
        bool, typer.Option("--no-dose-weighting", help="The plain sum, even where the dose is known.")
    ] = False,
    tolerate_frames: Annotated[
        int, typer.Option("--tolerate-frames", min=0, help="Go on without up to so many that cannot be read.")
    ] = 0,
    cs: Annotated[
        float, typer.Option("--cs", help="Spherical aberration in mm, for RELION's list of micrographs.")
    ] = 2.7,
    amplitude_contrast: Annotated[
        float, typer.Option("--amplitude-contrast", help="A fraction of 1, for the same list.")
    ] = 0.1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="That compute [one a core].")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print an array with an object for each movie.")] = False,
) -> None:
    """Align the frames of movies and add them up: gain, defects, local motion, dose weighting, RELION's motion STAR.

    Pixel size, voltage, dose and gain come from an mdoc or EPU's XML beside the movie, or from its header, where they
    are not given. Status 1 if a movie failed; the others are there all the same.

    Example: coldchain align *.tif --gain gain.mrc --dose-per-frame 1.1 --out aligned
    """
    dose = within("--dose-per-frame", dose_per_frame, limits.DOSE_E_PER_SQUARE_ANGSTROM, _DOSE_UNIT)
    if eer_dose is not None and eer_fractions is not None:
        raise UsageError("--eer-dose and --eer-fractions contradict each other", remedy="Give one of the two")
    stated = Stated(
        pixel_size_angstrom=within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å"),
        voltage_kilovolt=within("--voltage", voltage, limits.VOLTAGE_KILOVOLT, "kV"),
        dose_per_frame_e_per_square_angstrom=dose if eer_dose is None else None,
        dose_per_camera_frame_e_per_square_angstrom=None if eer_dose is None else dose,
        gain=None if gain is None or gain == _NONE else _file("--gain", Path(gain)),
        no_gain=gain == _NONE,
        defects=_file("--defects", defects),
        dark=_file("--dark", dark),
        counts_per_electron=within("--counts-per-electron", counts_per_electron, _COUNTS_PER_ELECTRON, ""),
    )
    frames = FramesWanted(
        first=first,
        last=_not_before(first, last),
        eer_fractions=eer_fractions,
        eer_dose_e_per_square_angstrom=within("--eer-dose", eer_dose, limits.DOSE_E_PER_SQUARE_ANGSTROM, _DOSE_UNIT),
        eer_upsampling=eer_upsampling,
        tolerate=tolerate_frames,
    )
    within("--pre-exposure", pre_exposure, _PRE_EXPOSURE_E_PER_SQUARE_ANGSTROM, _DOSE_UNIT)
    within("--bin", bin_factor, _BINNING, "")
    within("--cs", cs, _SPHERICAL_ABERRATION_MILLIMETER, "mm")
    within("--amplitude-contrast", amplitude_contrast, (0.0, 1.0), "")
    wishes = Wishes(
        patches=_grid(patches),
        bin_factor=bin_factor,
        halves=halves,
        dose_weighting=not no_dose_weighting,
        pre_exposure_e_per_square_angstrom=pre_exposure,
        gain_auto=gain_auto,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    _refuse_folders(movies)
    refuse_equal_names(movies, _MOVIES)
    check_names(movies, [path for path in (stated.gain, stated.defects, stated.dark) if path is not None], out)
    asked, count = Asked(stated, frames, wishes, out, Lens(cs, amplitude_contrast)), len(movies)
    with results_folder(out), closing(align_all(movies, asked)) as outcomes:
        if json:
            went_well = tell_as_json(outcomes, "movie", what=_MOVIES, count=count)
        else:
            went_well = tell_as_lines(outcomes, _lines, what=_MOVIES, count=count)
    if not went_well:
        raise typer.Exit(1)


def _refuse_folders(movies: Sequence[Path]) -> None:
    for path in movies:
        if path.is_dir():
            raise UsageError("it is a folder", remedy=f"Name the movies, or {path}/*.tiff", path=path)


def _not_before(first: int, last: int | None) -> int | None:
    if last is not None and last < first:
        raise UsageError(f"--last is {last}", expected=f"{first} or more, which is --first")
    return last


def _grid(text: str) -> tuple[int, int] | None:
    if text == _AUTO:
        return None
    found = _GRID.fullmatch(text)
    grid = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= count <= LARGEST_GRID for count in grid):
        expected = f"auto, or COLSxROWS such as 7x5, up to {LARGEST_GRID} each way"
        raise UsageError(f"--patches is {text!r}", expected=expected)
    return grid


def _file(option: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise UsageError(f"{option}: there is no such file", remedy="Name one that is there", path=path)
    return path


def _lines(report: Report) -> Iterator[str]:
    columns, rows = report.patches
    patches = f"{columns} × {rows} patches" if columns * rows > 1 else "whole frames only"
    moved = f"{report.frames} frame{'s' * (report.frames != 1)}, {report.total_motion_angstrom:.1f} Å motion"
    yield f"{report.output}: {moved}, {patches}, {report.timings_s['total']:.1f} s"
    yield from (f"  {warning}" for warning in report.warnings)
