"""Deciding what a failed step means for its exposure. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from coldchain.errors import BrokenWorkerError, ColdchainError, NoWorkerError, StorageError, StoreFullError
from coldchain.model.session import ExposureState


class Pause(Enum):
    """Why new work is held back."""

    NONE = "none"
    OUTAGE = "outage"
    FULL = "full"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class AfterFailure:
    """What becomes of the exposure, the reason to show, whether it counts as a try, and whether new work is held."""

    state: ExposureState
    reason: str
    counts: bool = True
    pause: Pause = Pause.NONE


def after_failure(error: BaseException, failures: int, attempts: int) -> AfterFailure:
    """What to do after a step failed for the `failures`-th time with these inputs.

    A full disk is not the exposure's fault: it stays ready, and work is held until there is room. An installation that
    cannot compute is not its fault either: it stays ready, and one is tried now and then; sooner where only no process
    could be started. A disk that does not
    answer may be back soon: the exposure is tried `attempts` times, and work is held between, so that an outage does
    not quarantine everything. A worker that died may have been killed for another's memory: the same, without a pause.
    Everything else would fail again the same way: the exposure is quarantined with its reason.
    """
    reason = str(error)
    if isinstance(error, StoreFullError):
        return AfterFailure(ExposureState.READY, reason, counts=False, pause=Pause.FULL)
    if isinstance(error, BrokenWorkerError):
        return AfterFailure(ExposureState.READY, reason, counts=False, pause=Pause.BROKEN)
    if isinstance(error, NoWorkerError):
        return AfterFailure(ExposureState.READY, reason, counts=False, pause=Pause.OUTAGE)
    if isinstance(error, StorageError) and failures < attempts:
        return AfterFailure(ExposureState.READY, reason, pause=Pause.OUTAGE)
    if isinstance(error, ColdchainError):
        again = error.retry and failures < attempts
        return AfterFailure(ExposureState.READY if again else ExposureState.QUARANTINED, reason)
    # Not one of ours: a fault in the program. The exposure fails alone and the page says what to report.
    return AfterFailure(ExposureState.QUARANTINED, f"unexpected {type(error).__name__}: {error}. Please report this.")
