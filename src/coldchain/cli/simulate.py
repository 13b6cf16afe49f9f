"""`coldchain simulate`: movies and sessions whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from coldchain.cli.console import output
from coldchain.errors import UsageError
from coldchain.model.session import Layout
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.plan import SessionPlan, camera_parameters
from coldchain.simulate.recording import record_movie, record_references
from coldchain.simulate.session import simulate_session
from coldchain.simulate.specimen import load_specimen
from coldchain.simulate.truth import MovieParameters, write_truth

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Movies and sessions with a planted truth.")

_CONTAINERS = {".tif": "tiff", ".tiff": "tiff", ".mrc": "mrc", ".eer": "eer"}

FramesOption = Annotated[int, typer.Option("--frames", min=1, help="Frames of a movie.")]
SizeOption = Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT in pixels.")]
PixelOption = Annotated[float, typer.Option("--pixel-size", help="Å.")]
VoltageOption = Annotated[float, typer.Option("--voltage", help="kV.")]
DoseOption = Annotated[float, typer.Option("--dose-per-frame", help="e⁻/Å².")]
DriftOption = Annotated[float, typer.Option("--drift", help="Å, from the first frame to the last.")]
StructureOption = Annotated[
    Path | None, typer.Option("--structure", help="A PDB or mmCIF file, .gz or not [a generated particle].")
]
GainOption = Annotated[bool, typer.Option("--gain/--no-gain", help="Raw counts, with a gain reference beside.")]
DefectsOption = Annotated[bool, typer.Option("--defects/--no-defects", help="Dead columns and hot pixels.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")]


@app.command("movie")
def movie_command(
    path: Annotated[Path, typer.Argument(help="The movie: .tif, .mrc or .eer. Its truth goes to PATH.truth.json.")],
    frames: FramesOption = 24,
    size: SizeOption = "1024x1024",
    pixel_size: PixelOption = 1.06,
    voltage: VoltageOption = 300.0,
    dose_per_frame: DoseOption = 1.6,
    defocus_u: Annotated[float, typer.Option("--defocus-u", help="Å; positive is underfocus.")] = 15000.0,
    defocus_v: Annotated[float, typer.Option("--defocus-v", help="Å; at most U.")] = 14700.0,
    defocus_angle: Annotated[float, typer.Option("--defocus-angle", help="Degrees from x.")] = 30.0,
    drift: DriftOption = 12.0,
    structure: StructureOption = None,
    gain: GainOption = False,
    defects: DefectsOption = False,
    seed: SeedOption = 0,
) -> None:
    """Write one movie, what is planted in it, and the gain reference that it wants.

    Example: coldchain simulate movie movie.tif --frames 40 --size 2048x2048 --gain
    """
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise UsageError(f"the suffix {path.suffix!r}", expected=", ".join(_CONTAINERS), path=path)
    width, height = _size(size)
    parameters = MovieParameters(
        frames=frames,
        width=width,
        height=height,
        pixel_size_angstrom=pixel_size,
        voltage_kilovolt=voltage,
        dose_per_frame_e_per_square_angstrom=dose_per_frame,
        defocus_u_angstrom=defocus_u,
        defocus_v_angstrom=defocus_v,
        defocus_angle_degrees=defocus_angle,
        drift_angstrom=drift,
        gain=gain,
        defects=defects,
        seed=seed,
        camera_seed=seed,
    )
    plan = SessionPlan(layout=Layout.SERIALEM, container=container, movie=parameters, seed=seed)
    made = simulate_movie(camera_parameters(plan), load_specimen(structure, seed=seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    record_movie(path, made, plan)
    references = record_references(plan, path.parent)
    truth_path = path.with_name(path.name + ".truth.json")
    write_truth(truth_path, made.truth)
    beside = [name for name in (references.gain_name, references.defects_name) if name]
    output.print(f"Wrote {path} and {', '.join([truth_path.name, *beside])} beside it.", markup=False, highlight=False)


@app.command("session")
def session_command(
    folder: Annotated[
        Path, typer.Argument(help="The session's folder, new or empty; its truth goes beside it, hidden.")
    ],
    layout: Annotated[Layout, typer.Option("--layout", help="How the files lie.")] = Layout.EPU,
    exposures: Annotated[int, typer.Option("--exposures", min=1, help="How many.")] = 6,
    seconds_between: Annotated[float, typer.Option("--seconds-between", help="The pace.")] = 0.0,
    seconds_to_write: Annotated[float, typer.Option("--seconds-to-write", help="How long a movie grows.")] = 0.0,
    container: Annotated[str, typer.Option("--container", help="tiff, mrc or eer.")] = "tiff",
    frames: FramesOption = 24,
    size: SizeOption = "1024x1024",
    pixel_size: PixelOption = 1.06,
    voltage: VoltageOption = 300.0,
    dose_per_frame: DoseOption = 1.6,
    drift: DriftOption = 12.0,
    structure: StructureOption = None,
    gain: GainOption = True,
    defects: DefectsOption = True,
    seed: SeedOption = 0,
) -> None:
    """Write a session as a microscope does: exposure by exposure, movies growing in place, metadata beside them.

    Example: coldchain simulate session camera/visit1 --exposures 30 --seconds-between 4
    """
    width, height = _size(size)
    plan = SessionPlan(
        layout=layout,
        exposures=exposures,
        seconds_between=seconds_between,
        seconds_to_write=seconds_to_write,
        container=container,
        movie=MovieParameters(
            frames=frames,
            width=width,
            height=height,
            pixel_size_angstrom=pixel_size,
            voltage_kilovolt=voltage,
            dose_per_frame_e_per_square_angstrom=dose_per_frame,
            drift_angstrom=drift,
            gain=gain,
            defects=defects,
        ),
        seed=seed,
    )
    with Progress(console=output) as bars:
        task = bars.add_task("exposures", total=exposures)
        # Hidden: beside a session in a camera's folder it must not be taken for data.
        truth_path = folder.with_name(f".{folder.name}.truth.json")
        simulate_session(
            plan,
            folder,
            specimen=load_specimen(structure, seed=seed),
            truth_path=truth_path,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    output.print(f"Wrote {folder} and {truth_path.name} beside it.", markup=False, highlight=False)


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size is {text!r}", expected="WIDTHxHEIGHT, such as 5760x4092")
    return int(width), int(height)
