"""Deciding what to compute next for an exposure. Pure: values in, a decision out.

A step's key is the digest of its name, its version, the digests of what it reads and its parameters. A step whose key
is done is never run again; a changed parameter changes the keys of that step and of those after it, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coldchain.model.files import FileKind
from coldchain.model.identity import digest_of
from coldchain.model.optics import Optics
from coldchain.model.results import Step, StepRun

# Raised when a step's results change for the same input; every exposure is then computed again on request.
STEP_VERSIONS: Mapping[Step, int] = {Step.ALIGN: 3, Step.CTF: 2, Step.PICK: 2, Step.PREVIEW: 1, Step.QUALITY: 1}


@dataclass(frozen=True, slots=True)
class PipelineParameters:
    """The facility's own choices for every session."""

    particle_diameter_angstrom: float | None = None
    attempts: int = 3
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ExposureInput:
    """What an exposure is computed from. Digests are SHA-256; `optics` are the values that count for it."""

    kind: FileKind
    sha256: str
    optics: Optics
    gain_sha256: str | None
    defects_sha256: str | None
    particle_diameter_angstrom: float | None
    generation: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step to run. `upstream` are the runs whose outputs it reads, by step."""

    step: Step
    key: str
    parameters: dict[str, object]
    upstream: Mapping[Step, StepRun]


def missing_values(kind: FileKind, optics: Optics) -> list[str]:
    """What must be known before an exposure can be computed, and is not, in the user's words."""
    wanted: dict[str, float | None] = {
        "pixel size": optics.pixel_size_angstrom,
        "voltage": optics.voltage_kilovolt,
        "spherical aberration": optics.spherical_aberration_millimeter,
        "amplitude contrast": optics.amplitude_contrast,
    }
    if kind is FileKind.MOVIE:
        wanted["dose"] = optics.dose_e_per_square_angstrom
    return [name for name, value in wanted.items() if value is None]


def steps_of(kind: FileKind) -> tuple[Step, ...]:
    """The steps that an exposure takes: a single image has nothing to align."""
    return tuple(step for step in Step if kind is FileKind.MOVIE or step is not Step.ALIGN)


def next_step(given: ExposureInput, parameters: PipelineParameters, done: Mapping[str, StepRun]) -> StepPlan | None:
    """The first step that is not done yet, or None where everything is."""
    upstream = standing_runs(given, parameters, done)
    for step in steps_of(given.kind):
        if step not in upstream:
            chosen = step_parameters(step, given, parameters)
            return StepPlan(step, step_key(step, given, chosen, upstream), chosen, upstream)
    return None


def standing_runs(
    given: ExposureInput, parameters: PipelineParameters, done: Mapping[str, StepRun]
) -> dict[Step, StepRun]:
    """The runs that count for these inputs and values, up to the first step that is not done."""
    standing: dict[Step, StepRun] = {}
    for step in steps_of(given.kind):
        run = done.get(step_key(step, given, step_parameters(step, given, parameters), standing))
        if run is None:
            break
        standing[step] = run
    return standing


def overtaken(standing: Mapping[Step, StepRun], done: Mapping[str, StepRun]) -> list[StepRun]:
    """Of the runs that count, those after which their step was done with other values: a page that shows the newest
    would show the wrong one."""
    newest = {step: max((run.id for run in done.values() if run.step is step), default=None) for step in standing}
    return [run for step, run in standing.items() if newest[step] != run.id]


def step_parameters(step: Step, given: ExposureInput, parameters: PipelineParameters) -> dict[str, object]:
    """The values that a step's result depends on, besides the files that it reads."""
    optics = given.optics
    imaging: dict[str, object] = {
        "pixel_size_angstrom": optics.pixel_size_angstrom,
        "voltage_kilovolt": optics.voltage_kilovolt,
    }
    match step:
        case Step.ALIGN:
            return imaging | {
                "dose_e_per_square_angstrom": optics.dose_e_per_square_angstrom,
                "frame_count": optics.frame_count,
                "gain_sha256": given.gain_sha256,
                "defects_sha256": given.defects_sha256,
            }
        case Step.CTF:
            return imaging | {
                "spherical_aberration_millimeter": optics.spherical_aberration_millimeter,
                "amplitude_contrast": optics.amplitude_contrast,
            }
        case Step.PICK:
            diameter = given.particle_diameter_angstrom or parameters.particle_diameter_angstrom
            return {"pixel_size_angstrom": optics.pixel_size_angstrom, "particle_diameter_angstrom": diameter}
        case Step.PREVIEW:
            return {}
        case Step.QUALITY:
            return {
                "pixel_size_angstrom": optics.pixel_size_angstrom,
                "dose_e_per_square_angstrom": optics.dose_e_per_square_angstrom,
            }


# What each step reads; previews show everything, so they follow everything.
_READS: Mapping[Step, tuple[Step, ...]] = {
    Step.ALIGN: (),
    Step.CTF: (Step.ALIGN,),
    Step.PICK: (Step.ALIGN,),
    Step.PREVIEW: (Step.ALIGN, Step.CTF),
    Step.QUALITY: (Step.ALIGN,),
}


def step_key(
    step: Step, given: ExposureInput, parameters: Mapping[str, object], upstream: Mapping[Step, StepRun]
) -> str:
    """The digest that names this step on this input with these parameters."""
    return digest_of(
        {
            "step": step.value,
            "version": STEP_VERSIONS[step],
            "generation": given.generation,
            "input": given.sha256,
            "upstream": {read.value: upstream[read].key for read in _READS[step] if read in upstream},
            "parameters": dict(parameters),
        }
    )
