"""`coldchain pick`: the particles of micrographs, and what is no particle, without a facility."""

from __future__ import annotations

import itertools
import math
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
from coldchain.preprocess.micrographs import WEIGHTED_FIRST, gather, read_templates
from coldchain.preprocess.output_names import PICK_ENDINGS, PICK_LIST_NAME, check_names
from coldchain.preprocess.pick_series import PickAsked, PickReport, pick_all

app = typer.Typer(add_completion=False)

_AUTO = "auto"
_WHAT = "micrographs"
_THRESHOLD = (0.0, 1.0)
_FALSE_ALARMS = (1e-6, 1e6)


@app.command()
def pick(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Micrographs (MRC, TIFF, PNG), or folders.")],
    diameter: Annotated[
        str,
        typer.Option("--diameter", metavar="Å|auto", help="Of the particles; 'auto': estimated, or the templates'."),
    ] = _AUTO,
    pixel_size: Annotated[float | None, typer.Option("--pixel-size", help="Å [as their header says].")] = None,
    templates: Annotated[
        Path | None, typer.Option("--templates", metavar="STACK.mrcs", help="Pictures of the particle [balls, shells].")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Least figure of merit of a pick, 0 to 1.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option("--false-alarm-rate", help="Instead: picks that a micrograph of noise may have [1]."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="That compute [one a core].")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print an array with an object for each file.")] = False,
) -> None:
    """Find particles, without a reference or with one, and the junk between them: carbon, ice, aggregates, gold.

    The pixel size comes from a micrograph's header, or from a STAR, an mdoc or EPU's XML beside it, where it is not
    given. Of a folder every exposure counts once. Status 1 if a file failed.

    Example: coldchain pick aligned --diameter 125 --out picks
    """
    if threshold is not None and false_alarm_rate is not None:
        raise UsageError("--threshold and --false-alarm-rate contradict each other", remedy="Give one of the two")
    within("--pixel-size", pixel_size, limits.PIXEL_SIZE_ANGSTROM, "Å")
    within("--threshold", threshold, _THRESHOLD, "")
    within("--false-alarm-rate", false_alarm_rate, _FALSE_ALARMS, "")
    diameter_angstrom = _diameter(diameter)
    paths, empty = gather(files, WEIGHTED_FIRST)
    refuse_equal_names(paths, _WHAT)
    references = [] if templates is None else [templates]
    check_names(paths, references, out, endings=PICK_ENDINGS, list_names=(PICK_LIST_NAME,))
    pictures, pictures_pixel = (None, None) if templates is None else read_templates(templates)
    asked = PickAsked(
        folder=out,
        pixel_size_angstrom=pixel_size,
        diameter_angstrom=diameter_angstrom,
        false_alarms_per_micrograph=1.0 if false_alarm_rate is None else false_alarm_rate,
        threshold=threshold,
        templates=pictures,
        templates_pixel_size_angstrom=pictures_pixel,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    count = len(paths) + len(empty)
    with results_folder(out), closing(pick_all(paths, asked)) as through:
        outcomes = itertools.chain(empty, through if paths else ())
        tell_all(outcomes, _lines, list_name=PICK_LIST_NAME, what=_WHAT, count=count, json=json)


def _diameter(text: str) -> float | None:
    if text == _AUTO:
        return None
    try:
        angstrom = float(text)
    except ValueError as error:
        raise UsageError(f"--diameter is {text!r}", expected="a number of Å, or 'auto'") from error
    return within("--diameter", angstrom if math.isfinite(angstrom) else 0.0, limits.PARTICLE_DIAMETER_ANGSTROM, "Å")


def _lines(report: PickReport, unlisted: Unlisted) -> Iterator[str]:
    count = len(report.picks)
    particles = f"{count} particle{'s' * (count != 1)} of {report.diameter_angstrom:.0f} Å" if count else "no particles"
    yield f"{report.file}: {particles}, {report.contamination_fraction:.1%} junk, {report.seconds:.1f} s"
    yield from (f"  {warning}" for warning in unlisted.others(report.warnings))
