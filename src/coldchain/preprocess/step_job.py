"""One step to run, what it left, and how a worker is told to run it.

It stands apart from `steps` so that the service starts without the kernels, which its workers alone need: they are a
quarter of all that it would import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import BrokenWorkerError, printable
from coldchain.model.results import Step, StepResult

# An absent package or library, one built for another NumPy, a compiler that finds no room for its cache.
_CANNOT_BE_LOADED = (ImportError, OSError, AttributeError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class StepJob:
    """One step to run. `inputs` maps roles to files; outputs go to `folder`, by way of `scratch` beside it."""

    step: Step
    inputs: Mapping[str, Path]
    parameters: Mapping[str, object]
    folder: Path
    scratch: Path
    threads: int


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step left: file names by role, relative to its folder; its result; warnings for the page."""

    outputs: dict[str, str]
    result: StepResult | None
    seconds: float
    warnings: tuple[str, ...] = ()


def run_in_worker(job: StepJob) -> StepOutcome:
    """`run_step`, imported where it runs. Raises what it raises, and BrokenWorkerError where it cannot be imported."""
    try:
        from coldchain.preprocess.steps import run_step  # with it come the compiler and scipy
    except _CANNOT_BE_LOADED as error:
        raise BrokenWorkerError(
            f"what computes a step cannot be loaded ({type(error).__name__}: {printable(str(error))})",
            remedy="Mend this host's installation, then start the service again. No exposure is given up for it",
        ) from error

    return run_step(job)
