"""Whether the clock can be believed: nothing is cleared because somebody has set it.

Ages and dates are read from the wall clock. It is compared with the time since the machine's start, which nobody can
set, and once, at the beginning, with the newest thing that the catalog knows of. Where they disagree, nothing is due
for a day: long enough for a person to see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_TOLERANCE_SECONDS = 3600.0
_REST_SECONDS = 86_400.0
_STILL = timedelta(days=30)


def steady_seconds() -> float:
    """Seconds since the machine's start, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Looks at the wall clock (`now`) and at one that is never set (`steady`, seconds).

    `newest` is the time of the newest thing that was written down before; None where there is none.
    """

    def __init__(
        self,
        newest: datetime | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._now, self._steady = now, steady
        self._trusted = self._seen = self._offset()
        self._rest_until = float("-inf")
        self._reason = ""
        wall = now()
        if newest is not None and not -timedelta(seconds=_TOLERANCE_SECONDS) <= wall - newest <= _STILL:
            self._reason = f"it is {wall:%Y-%m-%d %H:%M} UTC, and the newest event before is of {newest:%Y-%m-%d %H:%M}"
            self._rest_until = steady() + _REST_SECONDS

    def why_not(self) -> str:
        """Why nothing should be called due now; "" where the clock is believed."""
        offset = self._offset()
        if abs(offset - self._seen) > _TOLERANCE_SECONDS:
            self._seen = offset
            self._rest_until = self._steady() + _REST_SECONDS
            self._reason = f"the clock was set by {timedelta(seconds=round(offset - self._trusted))}"
            if abs(offset - self._trusted) <= _TOLERANCE_SECONDS:  # and it was set right again
                self._rest_until = float("-inf")
        if self._steady() >= self._rest_until:
            self._trusted, self._reason = self._seen, ""
        return self._reason

    def _offset(self) -> float:
        return self._now().timestamp() - self._steady()
