"""facility.toml → one frozen `Settings`.

Relative paths in the file are relative to the folder in which it lies. Every error names the file, the key, what was
found and what was expected; an unknown key is answered with the nearest known one.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from coldchain.catalog_section import CatalogSection
from coldchain.collect.place_pattern import PlacePattern
from coldchain.collect.watch_section import FacilityRule, WatchSection
from coldchain.errors import ConfigError, UsageError
from coldchain.model import limits
from coldchain.model.identity import UNNAMED_FACILITY
from coldchain.model.optics import Optics
from coldchain.model.policy import CopyPlan, RetireRule
from coldchain.model.quality import Thresholds
from coldchain.notify.notifier import Receiver
from coldchain.notify.sections import SECRET_KEYS, NotifySection
from coldchain.storage.sections import (
    Name,
    PolicySection,
    RetireSection,
    StorageSection,
    StoreSection,
    check_places,
    copy_plan,
)

FILE_NAME = "facility.toml"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Wide enough for every microscope, too narrow for another unit: nm for Å, V for kV, e⁻/nm² for e⁻/Å².
PixelSize = Annotated[float, Field(ge=limits.PIXEL_SIZE_ANGSTROM[0], le=limits.PIXEL_SIZE_ANGSTROM[1])]
Voltage = Annotated[float, Field(ge=limits.VOLTAGE_KILOVOLT[0], le=limits.VOLTAGE_KILOVOLT[1])]
Dose = Annotated[float, Field(ge=limits.DOSE_E_PER_SQUARE_ANGSTROM[0], le=limits.DOSE_E_PER_SQUARE_ANGSTROM[1])]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class FacilitySection(_Section):
    """Who this is. `site` owns the rows that this service writes; each host that runs the service has its own."""

    name: str = UNNAMED_FACILITY
    site: Name = "main"


class ResultsSection(_Section):
    """Where micrographs, spectra, picks and previews go."""

    folder: Path = Path("results")


class OpticsSection(_Section):
    """What to assume where neither metadata nor session say it."""

    pixel_size_angstrom: PixelSize | None = None
    voltage_kilovolt: Voltage | None = None
    spherical_aberration_millimeter: NotNegative = 2.7
    amplitude_contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dose_e_per_square_angstrom: Dose | None = None
    gain: str | None = None

    def as_optics(self) -> Optics:
        """The same as a model value."""
        return Optics(**self.model_dump())


class InstrumentSection(_Section):
    """A microscope with its camera: where its movies appear, and how to see that they are whole."""

    name: Name
    movie_root: Path
    metadata_roots: tuple[Path, ...] = ()
    name_pattern: str | None = None
    optics: OpticsSection = OpticsSection()
    settle_seconds: Positive = 5.0
    scan_seconds: Positive = 10.0
    patience_seconds: Positive = 60.0
    orphan_seconds: Positive = 600.0

    @field_validator("name_pattern")
    @classmethod
    def _places(cls, value: str | None) -> str | None:
        try:
            return value if value is None else PlacePattern(value).source
        except UsageError as error:
            raise ValueError(f"{error.expected or 'a pattern that can be used'} ({error.found})") from error


class PipelineSection(_Section):
    """What is computed for each exposure."""

    particle_diameter_angstrom: Positive | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = 3


def _two(value: object) -> object:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError("two numbers: [doubtful, bad]")
    return value


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("[doubtful beyond, bad beyond], the second not less than the first")
    return pair


def _falling(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] < pair[1]:
        raise ValueError("[doubtful below, bad below], the second not more than the first")
    return pair


Beyond = Annotated[tuple[NotNegative, NotNegative], BeforeValidator(_two), AfterValidator(_rising)]
Count = Annotated[int, Field(ge=0)]
Below = Annotated[tuple[Count, Count], BeforeValidator(_two), AfterValidator(_falling)]
_USUAL = Thresholds()


class QualitySection(_Section):
    """When a micrograph is doubtful, and when it is bad."""

    total_motion_angstrom: Beyond = _USUAL.total_motion_angstrom
    motion_error_angstrom: Beyond = _USUAL.motion_error_angstrom
    fit_resolution_angstrom: Beyond = _USUAL.fit_resolution_angstrom
    astigmatism_angstrom: Beyond = _USUAL.astigmatism_angstrom
    ice_thickness: Beyond = _USUAL.ice_thickness
    unevenness: Beyond = _USUAL.unevenness
    ice_ring_density: Beyond = _USUAL.ice_ring_density
    contamination_fraction: Beyond = _USUAL.contamination_fraction
    fewest_picks: Below = _USUAL.fewest_picks

    def as_thresholds(self) -> Thresholds:
        """The same as a model value."""
        return Thresholds(**self.model_dump())


class ComputeSection(_Section):
    """Where work runs: this machine's cores. Default: a worker for every two cores, two threads each."""

    engine: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] = max(1, (os.cpu_count() or 1) // 2)
    threads_per_worker: Annotated[int, Field(ge=1, le=256)] = min(2, os.cpu_count() or 1)
    copy_threads: Annotated[int, Field(ge=1, le=64)] = 8


class WebSection(_Section):
    """Where the site listens. Nothing can be changed from it, but it has no accounts: leave it on this machine."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8600


class Settings(_Section):
    """The whole of facility.toml, paths made absolute. `origin` is the file."""

    origin: Path = Field(exclude=True)
    facility: FacilitySection = FacilitySection()
    catalog: CatalogSection = CatalogSection()
    results: ResultsSection = ResultsSection()
    instrument: tuple[InstrumentSection, ...] = ()
    store: tuple[StoreSection, ...] = ()
    policy: tuple[PolicySection, ...] = ()
    retire: tuple[RetireSection, ...] = ()
    storage: StorageSection = StorageSection()
    pipeline: PipelineSection = PipelineSection()
    quality: QualitySection = QualitySection()
    compute: ComputeSection = ComputeSection()
    web: WebSection = WebSection()
    notify: tuple[NotifySection, ...] = ()
    watch: tuple[WatchSection, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Settings:
        for kind in ("instrument", "store", "policy", "retire", "notify", "watch"):
            names = [section.name for section in getattr(self, kind)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} names that differ; {twice[0]!r} stands there twice")
        return self

    def instrument_named(self, name: str) -> InstrumentSection:
        """The instrument of that name; ConfigError naming the known ones where there is none."""
        for instrument in self.instrument:
            if instrument.name == name:
                return instrument
        known = ", ".join(i.name for i in self.instrument) or "none"
        raise ConfigError(
            f"no instrument is called {name!r}",
            expected=f"one of: {known}",
            remedy="Add an [[instrument]] or use a known name.",
            path=self.origin,
        )

    @model_validator(mode="after")
    def _watches_tell_somebody(self) -> Settings:
        known = [rule.name for rule in self.notify]
        for watch in self.watch:
            if watch.notify is not None and watch.notify not in known:
                names = ", ".join(known) or "none"
                raise ValueError(f"the name of a [[notify]] where watch {watch.name!r} says notify (known: {names})")
        return self

    @model_validator(mode="after")
    def _policies_can_be_met(self) -> Settings:
        self.copy_plan()
        check_places(self.store, self.retire)
        return self

    def copy_plan(self) -> CopyPlan:
        """Where each kind of file goes."""
        return copy_plan(self.store, self.policy)

    def retire_rules(self) -> list[RetireRule]:
        """What may be cleared from where, and when."""
        return [rule.as_rule() for rule in self.retire]

    def watch_rules(self) -> list[FacilityRule]:
        """What is watched beside the instruments."""
        base = self.origin.parent
        return [
            watch.as_rule(base, None if watch.notify is None else self.receiver_named(watch.notify))
            for watch in self.watch
        ]

    def receivers(self) -> list[Receiver]:
        """Who is told what, as the rules say."""
        return [rule.as_receiver(self.facility.name, self.origin.parent) for rule in self.notify]

    def receiver_named(self, name: str) -> Receiver:
        """The receiver of that rule; ConfigError naming the known ones where there is none."""
        for receiver in self.receivers():
            if receiver.rule.name == name:
                return receiver
        known = ", ".join(rule.name for rule in self.notify) or "none"
        raise ConfigError(
            f"no rule is called {name!r}",
            expected=f"one of: {known}",
            remedy="Add a [[notify]] or use a known name.",
            path=self.origin,
        )


def load(path: Path) -> Settings:
    """Read facility.toml. Raises ConfigError."""
    raw = _parse(path)
    try:
        settings = Settings.model_validate({**raw, "origin": path.resolve()})
    except ValidationError as error:
        raise _explain(path, error) from None
    settings = _absolute(settings)
    _refuse_overlaps(settings)
    return settings


def _parse(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file",
            remedy="Run `coldchain init` to write one, or name yours with --config.",
            path=path,
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", remedy="Check its permissions.", path=path) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is not UTF-8", expected="UTF-8 text", path=path) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", remedy="Mend that line.", path=path) from None
    if "origin" in raw:
        raise _unknown(path, "origin", _known_keys(()))
    return raw


def _absolute(settings: Settings) -> Settings:
    """The settings with every relative path resolved against the folder of the file."""
    base = settings.origin.parent
    return settings.model_copy(
        update={
            "catalog": settings.catalog.resolved(base),
            "results": settings.results.model_copy(update={"folder": base / settings.results.folder}),
            "instrument": tuple(_rooted(instrument, base) for instrument in settings.instrument),
            "store": tuple(store.below(base) for store in settings.store),
        }
    )


def _rooted(instrument: InstrumentSection, base: Path) -> InstrumentSection:
    roots = tuple(base / root for root in instrument.metadata_roots)
    return instrument.model_copy(update={"movie_root": base / instrument.movie_root, "metadata_roots": roots})


def _refuse_overlaps(settings: Settings) -> None:
    """Raise ConfigError where one place holds another: copies would be taken for new data, or two stores be one."""
    places = [(f"instrument[{n}].movie_root", i.movie_root) for n, i in enumerate(settings.instrument, start=1)]
    places += [
        (f"instrument[{n}].metadata_roots[{k}]", root)
        for n, i in enumerate(settings.instrument, start=1)
        for k, root in enumerate(i.metadata_roots, start=1)
    ]
    places += [(f"store[{n}].url", s.folder) for n, s in enumerate(settings.store, start=1) if s.folder is not None]
    places.append(("results.folder", settings.results.folder))
    real = [(key, folder.resolve()) for key, folder in places]
    for (key, folder), (other_key, other) in itertools.combinations(real, 2):
        if folder == other or folder in other.parents or other in folder.parents:
            raise ConfigError(
                f"{key} and {other_key} overlap ({folder} and {other})",
                expected="folders apart from each other",
                remedy="Move one of them",
                path=settings.origin,
            )


def _explain(path: Path, error: ValidationError) -> ConfigError:
    """The first fault of a validation, in the house's words."""
    faults = error.errors()
    # A misspelt key is unknown and the right one missing: the former says more.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = _dotted(first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(path, key, _known_keys(first["loc"][:-1]))
    if first["type"] == "missing":
        return ConfigError(f"the key {key} is missing", remedy=f"Add {key.rpartition('.')[2]} = …", path=path)
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "model_type":
        expected = "a table"
    elif first["type"] in {"tuple_type", "list_type"}:
        expected = 'a list, such as ["…", "…"]'
    where = f"{key} = {first['input']!r}" if key else "the file"
    last = key.rpartition(".")[2]
    may_hold_a_password = last in {"url", "peer_url", "endpoint_url"} and "@" in str(first["input"])
    if key and (isinstance(first["input"], dict) or last in SECRET_KEYS or may_hold_a_password):
        where = key
    return ConfigError(f"found {where}", expected=expected, remedy="Change that value.", path=path)


def _unknown(path: Path, key: str, known: Sequence[str]) -> ConfigError:
    nearest = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.0)
    remedy = f"Did you mean {nearest[0]}?" if nearest else "Remove it."
    return ConfigError(f"unknown key {key}", expected=f"one of {', '.join(known)}", remedy=remedy, path=path)


def _dotted(location: Sequence[int | str]) -> str:
    """("store", 0, "url") → "store[1].url", counting as people do."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _known_keys(location: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            candidates = [annotation, *get_args(annotation)]
            model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items() if name != "origin"]


def template(values: Mapping[str, str]) -> str:
    """A commented facility.toml; `values` fills its $-marks (see `templates/facility.toml`)."""
    text = resources.files("coldchain").joinpath("templates", FILE_NAME).read_text(encoding="utf-8")
    for key, value in values.items():
        # TOML's basic strings know JSON's escapes.
        text = text.replace(f"${key}$", json.dumps(value)[1:-1])
    return text
