"""The acceleration voltage, and what is taken for one."""

from __future__ import annotations

from coldchain.errors import ProcessingError

_LOWEST_KILOVOLT = 10.0
_HIGHEST_KILOVOLT = 3000.0


def check_voltage(voltage_kilovolt: float) -> None:
    """Raise `ProcessingError` where no electron microscope has such a voltage: it must be 10 to 3,000 kV."""
    if _possible(voltage_kilovolt):
        return
    remedy = "Correct the session's voltage"
    for unit, kilovolt in (("MV", voltage_kilovolt * 1000), ("V", voltage_kilovolt / 1000)):
        if _possible(kilovolt):
            remedy += f"; was it given in {unit}? {voltage_kilovolt:g} {unit} are {kilovolt:g} kV"
    raise ProcessingError(
        f"the voltage is {voltage_kilovolt:g} kV",
        expected=f"{_LOWEST_KILOVOLT:g} to {_HIGHEST_KILOVOLT:,.0f} kV",
        remedy=remedy,
    )


def _possible(kilovolt: float) -> bool:
    return _LOWEST_KILOVOLT <= kilovolt <= _HIGHEST_KILOVOLT
