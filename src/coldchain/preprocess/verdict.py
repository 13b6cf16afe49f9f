"""Deciding what a failed step means for its exposure. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from coldchain.errors import ColdchainError, StoreFullError
from coldchain.model.session import ExposureState


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the exposure, the reason to show, and whether new work should be held back for a while."""

    state: ExposureState
    reason: str
    hold: bool = False


def after_failure(error: BaseException, failures: int, attempts: int) -> Verdict:
    """What to do after a step failed for the `failures`-th time with these inputs.

    A full disk is not the exposure's fault: it stays ready, and work is held until there is room. What may pass by
    itself is tried `attempts` times. Everything else would fail again the same way: the exposure is quarantined with
    its reason.
    """
    if isinstance(error, StoreFullError):
        return Verdict(ExposureState.READY, str(error), hold=True)
    if isinstance(error, ColdchainError):
        if error.retry and failures < attempts:
            return Verdict(ExposureState.READY, str(error))
        return Verdict(ExposureState.QUARANTINED, str(error))
    # Not one of ours: a fault in the program. The exposure fails alone and the page says what to report.
    return Verdict(ExposureState.QUARANTINED, f"unexpected {type(error).__name__}: {error}. Please report this.")
