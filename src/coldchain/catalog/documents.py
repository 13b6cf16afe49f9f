"""Optics, metadata, parameters and measures ↔ JSON objects.

Keys are the fields' names. Unknown keys, which a newer version may have written, are ignored when read, and kept when
written over (`written_over`); missing keys, which an older version left out, are the fields' defaults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.quality import Grade, Measures, Quantity, Reason
from coldchain.model.session import SessionParameters

JsonObject = dict[str, Any]

# Asking a class for its fields costs more than all else here, and every file asks.
_NAMES: dict[type, dict[str, None]] = {
    kind: dict.fromkeys(field.name for field in fields(kind))
    for kind in (Optics, ExposureMetadata, SessionParameters, Measures)
}


def _flat(value: Optics | ExposureMetadata | SessionParameters | Measures) -> JsonObject:
    return {name: getattr(value, name) for name in _NAMES[type(value)]}


def _known(document: JsonObject, kind: type[Optics | ExposureMetadata | SessionParameters | Measures]) -> JsonObject:
    names = _NAMES[kind]
    return {name: item for name, item in document.items() if name in names}


def optics_to_json(optics: Optics) -> JsonObject:
    """Optics as a JSON object."""
    return _flat(optics)


def optics_from_json(document: JsonObject) -> Optics:
    """The inverse of `optics_to_json`."""
    return Optics(**_known(document, Optics))


def metadata_to_json(metadata: ExposureMetadata) -> JsonObject:
    """An exposure's metadata as a JSON object; times in ISO 8601."""
    document = _flat(metadata)
    document["optics"] = optics_to_json(metadata.optics)
    if metadata.acquired_at is not None:
        document["acquired_at"] = metadata.acquired_at.isoformat()
    return document


def metadata_from_json(document: JsonObject) -> ExposureMetadata:
    """The inverse of `metadata_to_json`."""
    known = _known(document, ExposureMetadata)
    known["optics"] = optics_from_json(known.get("optics", {}))
    known["acquired_at"] = time_from_json(known.get("acquired_at"))
    return ExposureMetadata(**known)


def parameters_to_json(parameters: SessionParameters) -> JsonObject:
    """A session's parameters as a JSON object."""
    document = _flat(parameters)
    document["optics"] = optics_to_json(parameters.optics)
    return document


def parameters_from_json(document: JsonObject) -> SessionParameters:
    """The inverse of `parameters_to_json`."""
    known = _known(document, SessionParameters)
    known["optics"] = optics_from_json(known.get("optics", {}))
    return SessionParameters(**known)


def measures_to_json(measures: Measures) -> JsonObject:
    """What a verdict rests on as a JSON object; numbers that are not finite are nothing."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in _flat(measures).items()
    }


def measures_from_json(document: JsonObject) -> Measures:
    """The inverse of `measures_to_json`."""
    return Measures(**_known(document, Measures))


def reasons_to_json(reasons: Sequence[Reason]) -> list[list[str]]:
    """Reasons as lists of quantity, grade and words."""
    return [[reason.quantity.value, reason.grade.value, reason.words] for reason in reasons]


def reasons_from_json(document: Sequence[Sequence[str]]) -> tuple[Reason, ...]:
    """The inverse of `reasons_to_json`; what a newer version reasons by is left out."""
    known = {quantity.value for quantity in Quantity}
    return tuple(
        Reason(Quantity(quantity), Grade(grade), words) for quantity, grade, words in document if quantity in known
    )


def written_over(old: JsonObject, new: JsonObject) -> JsonObject:
    """A document of metadata or parameters in the place of another, whose unknown keys stay."""
    return {**old, **new, "optics": {**old.get("optics", {}), **new["optics"]}}


def time_from_json(text: str | None) -> datetime | None:
    """An ISO 8601 time."""
    return None if text is None else datetime.fromisoformat(text)
