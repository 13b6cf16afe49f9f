"""`coldchain align`: movies to micrographs, without a facility."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from coldchain.cli.console import errors, output, print_json, within
from coldchain.errors import UsageError, printable
from coldchain.model import limits
from coldchain.preprocess.exposure import Stated
from coldchain.preprocess.raw_movie import FramesWanted, Wishes
from coldchain.preprocess.series import Done, Failed, align_all

app = typer.Typer(add_completion=False)

_GRID = re.compile(r"([0-9]{1,4})[xX×]([0-9]{1,4})")
_NO_GAIN = "none"
_BYTES_PER_KIB = 1024


@app.command()
def align(
    movies: Annotated[
        list[Path], typer.Argument(metavar="MOVIE…", help="TIFF, MRC or EER, or a text that names one file a frame.")
    ],
    gain: Annotated[str | None, typer.Option("--gain", help="FILE, or 'none' [as the mdoc names it].")] = None,
    gain_auto: Annotated[
        bool, typer.Option("--gain-auto", help="Turn, flip or invert a gain reference that fits only so.")
    ] = False,
    defects: Annotated[Path | None, typer.Option("--defects", help="FILE [as the mdoc names it].")] = None,
    dark: Annotated[Path | None, typer.Option("--dark", help="FILE, subtracted first: integrating cameras.")] = None,
    counts_per_electron: Annotated[
        float | None, typer.Option("--counts-per-electron", help="The frames are divided by it [1].")
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", help="Å, of the frames as stored; EER: of the sensor's pixel.")
    ] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", help="kV.")] = None,
    dose_per_frame: Annotated[
        float | None,
        typer.Option(
            "--dose-per-frame",
            help="e⁻/Å² of a frame as read; EER: of a fraction, or with --eer-dose of a frame of the camera.",
        ),
    ] = None,
    pre_exposure: Annotated[float, typer.Option("--pre-exposure", help="e⁻/Å² before the first frame.")] = 0.0,
    patches: Annotated[str, typer.Option("--patches", help="auto, or COLSxROWS; 1x1: whole frames only.")] = "auto",
    bin_factor: Annotated[float, typer.Option("--bin", help="Pixel of the sums over that of the frames.")] = 1.0,
    first: Annotated[int, typer.Option("--first", min=1, help="First frame used, counted from 1.")] = 1,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Last frame used [the last].")] = None,
    eer_fractions: Annotated[
        int | None, typer.Option("--eer-fractions", min=1, help="About how many frames an EER is rendered to [40].")
    ] = None,
    eer_dose: Annotated[
        float | None,
        typer.Option(
            "--eer-dose", help="e⁻/Å² of a rendered frame, instead; the dose comes from metadata or --dose-per-frame."
        ),
    ] = None,
    eer_upsampling: Annotated[
        int, typer.Option("--eer-upsampling", min=1, max=2, help="1: the sensor's pixels; 2: half of them.")
    ] = 1,
    halves: Annotated[bool, typer.Option("--halves", help="Also the sums of even and of odd frames.")] = False,
    no_dose_weighting: Annotated[
        bool, typer.Option("--no-dose-weighting", help="The plain sum, even if the dose is known.")
    ] = False,
    tolerate_frames: Annotated[
        int, typer.Option("--tolerate-frames", min=0, help="Go on without so many frames that cannot be read.")
    ] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="In all [one a core].")] = None,
    out: Annotated[Path, typer.Option("--out", help="Where the results go.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print an array with an object per movie.")] = False,
) -> None:
    """Align the frames of movies: gain, defects, local motion, dose weighting; micrographs and RELION's motion STAR.

    Pixel size, voltage, dose and gain come from an mdoc or EPU's XML beside the movie, or from its header, where they
    are not given.

    Example: coldchain align *.tif --gain gain.mrc --dose-per-frame 1.1 --out aligned
    """
    stated = Stated(
        pixel_size_angstrom=within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å"),
        voltage_kilovolt=within("--voltage", voltage, limits.VOLTAGE_KILOVOLT, "kV"),
        dose_per_frame_e_per_square_angstrom=within(
            "--dose-per-frame", dose_per_frame, limits.DOSE_E_PER_SQUARE_ANGSTROM, "e⁻/Å²"
        ),
        gain=None if gain in (None, _NO_GAIN) else _file("--gain", Path(gain)),
        no_gain=gain == _NO_GAIN,
        defects=_file("--defects", defects),
        dark=_file("--dark", dark),
        counts_per_electron=counts_per_electron,
    )
    wanted = FramesWanted(first, last, eer_fractions, eer_upsampling, tolerate_frames)
    wishes = Wishes(
        patches=_grid(patches),
        bin_factor=bin_factor,
        halves=halves,
        dose_weighting=not no_dose_weighting,
        pre_exposure_e_per_square_angstrom=pre_exposure,
        gain_auto=gain_auto,
        threads=threads or os.cpu_count() or 1,
    )
    _refuse_equal_stems(movies)
    out.mkdir(parents=True, exist_ok=True)
    outcomes = align_all(movies, stated, wanted, wishes, out)
    if not _tell(outcomes, json=json):
        raise typer.Exit(1)


def _grid(text: str) -> tuple[int, int] | None:
    if text == "auto":
        return None
    found = _GRID.fullmatch(text)
    if found is None:
        raise UsageError(f"--patches is {text!r}", expected="auto, or COLSxROWS such as 7x5")
    return int(found[1]), int(found[2])


def _file(option: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise UsageError(f"{option} names no file", remedy="Name one that is there", path=path)
    return path


def _refuse_equal_stems(movies: list[Path]) -> None:
    stem, count = Counter(movie.stem for movie in movies).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"{count} movies are called {printable(stem)}, and their results would be",
            expected="movies of different names",
            remedy="Align them in calls of their own, each with another --out",
        )


def _tell(outcomes: Iterable[Done | Failed], *, json: bool) -> bool:
    """Say what became of each movie; whether all went well."""
    told: list[dict[str, object]] = []
    well = True
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            well = False
            told.append({"movie": str(outcome.movie), "error": str(outcome.error)})
            errors.print(f"coldchain: {outcome.error}", markup=False, highlight=False, soft_wrap=True)
        else:
            told.append(_record(outcome))
            if not json:
                _say(outcome)
    if json:
        print_json(told)
    return well


def _say(done: Done) -> None:
    record = _record(done)
    output.print(str(record), markup=False, highlight=False)


def _record(done: Done) -> dict[str, object]:
    from coldchain.preprocess.alignment import track_lengths

    alignment = done.alignment
    aligned, lengths = alignment.aligned, track_lengths(alignment)
    return {
        "movie": str(done.movie),
        "output": str(done.files["micrograph"]),
        "frames": len(alignment.numbers),
        "shape": list(aligned.micrograph.shape),
        "pixel_size_angstrom": aligned.pixel_size_angstrom,
        "total_motion_angstrom": lengths.total_angstrom,
        "early_motion_angstrom": lengths.early_angstrom,
        "late_motion_angstrom": lengths.late_angstrom,
        "patches": list(aligned.motion.grid),
        "rank": aligned.rank,
        "error_angstrom": aligned.error_angstrom if math.isfinite(aligned.error_angstrom) else None,
        "warnings": list(alignment.warnings),
        "timings_s": done.seconds,
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _peak_rss_bytes() -> int:
    """The most memory that this process has held; what its parent held before it does not count."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmHWM:\s*([0-9]+) kB", status)
    return int(found[1]) * _BYTES_PER_KIB if found else 0
