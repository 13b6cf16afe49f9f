"""`coldchain ctf`: the defocus of micrographs, and whether to believe it, without a facility."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from coldchain.cli.console import within
from coldchain.cli.outcomes import refuse_equal_names, results_folder
from coldchain.cli.unlisted import Unlisted, tell_all
from coldchain.errors import UsageError
from coldchain.model import limits
from coldchain.model.optics import Optics
from coldchain.preprocess.ctf_series import CtfAsked, CtfReport, fit_all
from coldchain.preprocess.imaging import SPHERICAL_ABERRATION_MILLIMETER
from coldchain.preprocess.micrographs import UNWEIGHTED_FIRST, gather
from coldchain.preprocess.output_names import CTF_ENDINGS, CTF_LIST_NAME, check_names

app = typer.Typer(add_completion=False)

_FIT = "fit"
_WHAT = "micrographs"
_AMPLITUDE_CONTRAST = (0.0, 0.999)
_RESOLUTION_ANGSTROM = (0.5, 1000.0)
_DEFOCUS_ANGSTROM = (1.0, 1_000_000.0)
_PHASE_SHIFT_DEGREES = (-360.0, 360.0)


@app.command()
def ctf(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Micrographs (MRC, TIFF, PNG), movies' _PS.mrc spectra, or folders."),
    ],
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", help="Å, of micrographs [as their header says].")
    ] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", help="kV [as the metadata say].")] = None,
    cs: Annotated[
        float | None, typer.Option("--cs", help="Spherical aberration in mm [as an alignment listed it, or 2.7].")
    ] = None,
    amplitude_contrast: Annotated[
        float | None, typer.Option("--amplitude-contrast", help="A fraction of 1 [as an alignment listed it, or 0.1].")
    ] = None,
    phase_shift: Annotated[
        str, typer.Option("--phase-shift", metavar="fit|DEG", help="Of a phase plate, in degrees, or 'fit'.")
    ] = "0",
    tilt: Annotated[bool, typer.Option("--tilt", help="Also fit the specimen's tilt.")] = False,
    min_resolution: Annotated[float, typer.Option("--min-resolution", help="Å: where the fit begins (coarse).")] = 30.0,
    max_resolution: Annotated[float, typer.Option("--max-resolution", help="Å: where it ends (fine).")] = 3.0,
    min_defocus: Annotated[float, typer.Option("--min-defocus", help="Å: least that is searched.")] = 3000.0,
    max_defocus: Annotated[float, typer.Option("--max-defocus", help="Å: largest that is searched.")] = 50000.0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="That compute [one a core].")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print an array with an object for each file.")] = False,
) -> None:
    """Fit the contrast transfer function: defocus, astigmatism, phase shift, and whether to trust them.

    Pixel size and voltage come from a micrograph's header, or from a STAR, an mdoc or EPU's XML beside it, where they
    are not given. Of a folder every exposure counts once. Status 1 if a file failed; a fit that cannot be trusted is no
    failure, and says so.

    Example: coldchain ctf aligned --voltage 300 --out ctf
    """
    _in_order("--max-resolution", max_resolution, "--min-resolution", min_resolution, _RESOLUTION_ANGSTROM)
    _in_order("--min-defocus", min_defocus, "--max-defocus", max_defocus, _DEFOCUS_ANGSTROM)
    stated = Optics(
        pixel_size_angstrom=within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å"),
        voltage_kilovolt=within("--voltage", voltage, limits.VOLTAGE_KILOVOLT, "kV"),
        spherical_aberration_millimeter=within("--cs", cs, SPHERICAL_ABERRATION_MILLIMETER, "mm"),
        amplitude_contrast=within("--amplitude-contrast", amplitude_contrast, _AMPLITUDE_CONTRAST, ""),
    )
    asked = CtfAsked(
        stated=stated,
        folder=out,
        min_resolution_angstrom=min_resolution,
        max_resolution_angstrom=max_resolution,
        min_defocus_angstrom=min_defocus,
        max_defocus_angstrom=max_defocus,
        phase_shift_degrees=0.0 if phase_shift == _FIT else _degrees(phase_shift),
        fit_phase_shift=phase_shift == _FIT,
        tilt=tilt,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    paths, empty = gather(files, UNWEIGHTED_FIRST)
    refuse_equal_names(paths, _WHAT)
    check_names(paths, [], out, endings=CTF_ENDINGS, list_names=(CTF_LIST_NAME,))
    count = len(paths) + len(empty)
    with results_folder(out), closing(fit_all(paths, asked)) as through:
        outcomes = itertools.chain(empty, through if paths else ())
        tell_all(outcomes, _lines, list_name=CTF_LIST_NAME, what=_WHAT, count=count, json=json)


def _degrees(text: str) -> float:
    try:
        degrees = float(text)
    except ValueError as error:
        raise UsageError(f"--phase-shift is {text!r}", expected="degrees, or 'fit'") from error
    within("--phase-shift", degrees, _PHASE_SHIFT_DEGREES, "°")
    return degrees


def _in_order(lower: str, least: float, upper: str, largest: float, bounds: tuple[float, float]) -> None:
    within(lower, least, bounds, "Å")
    within(upper, largest, bounds, "Å")
    if not least < largest:
        raise UsageError(f"{lower} is {least:g} Å and {upper} {largest:g} Å", expected=f"{lower} below {upper}")


def _lines(report: CtfReport, unlisted: Unlisted) -> Iterator[str]:
    found = (
        f"{report.defocus_u_angstrom:.0f} / {report.defocus_v_angstrom:.0f} Å at {report.defocus_angle_degrees:.1f}°"
        f" ± {report.uncertainty_angstrom:.0f} Å, to {report.fit_resolution_angstrom:.1f} Å"
    )
    if report.phase_shift_degrees:
        found += f", phase shift {report.phase_shift_degrees:.1f}°"
    found += "".join(f", {words}" for words in _tilt(report))
    if report.trustworthy:
        yield f"{report.file}: {found}, {report.seconds:.1f} s"
    else:
        yield f"{report.file}: not to be trusted: {report.reason}" + (f" ({found})" if report.files else "")
    yield from (f"  {warning}" for warning in unlisted.others(report.warnings))


def _tilt(report: CtfReport) -> Iterator[str]:
    """What is known of the tilt, where it was asked for."""
    error = report.tilt_uncertainty_degrees
    if report.tilt_degrees is None:
        return
    if error is None:
        yield "whether it is tilted cannot be told"
    elif report.tilt_degrees:
        yield f"tilt {report.tilt_degrees:.1f} ± {error:.1f}° about {report.tilt_axis_degrees:.1f}°"
    else:
        yield f"no tilt to be seen (less than ± {error:.1f}°)"
