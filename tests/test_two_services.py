"""A facility's two sites, each with its service and its catalog server, while links are cut and servers killed."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from coldchain import config
from coldchain.catalog import sessions, steps
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.tables import Base
from coldchain.model.results import StepState
from coldchain.model.session import Exposure, ExposureState
from tests.catalog.test_two_primaries_chaos import FAULTS, SITES, assert_same
from tests.facility import KNOWN_OPTICS, TestFacility, all_exposures, write_small_movie
from tests.two_primaries import TwoPrimaries, two_primaries

_TOML = """
[facility]
name = "Test"
site = "{site}"
[catalog]
url = "{url}"
peer_url = "{peer_url}"
[[instrument]]
name = "scope of {site}"
movie_root = "camera"
settle_seconds = 0.5
scan_seconds = 1
[instrument.optics]
{optics}
[[store]]
name = "live of {site}"
url = "live"
[pipeline]
particle_diameter_angstrom = 60
attempts = 20
[compute]
workers = 1
threads_per_worker = 1
[web]
port = 0
"""
_AUDIT = "audit"
_PATIENCE_SECONDS = 1200.0


def _facility(folder: Path, pair: TwoPrimaries, number: int) -> TestFacility:
    """The facility's part on one site."""
    root = folder / SITES[number]
    for name in ("camera", "live"):
        (root / name).mkdir(parents=True)
    text = _TOML.format(site=SITES[number], url=pair.url(number), peer_url=pair.url(1 - number), optics=KNOWN_OPTICS)
    (root / config.FILE_NAME).write_text(text, encoding="utf-8")
    return TestFacility(root)


def _watch_owners(pair: TwoPrimaries) -> None:
    """Have each server note every row that its site writes and another owns. What replication brings is not noted."""
    for number, server in enumerate(pair.servers):
        server.run(
            "SET sql_log_bin = 0",
            f"CREATE DATABASE {_AUDIT}",
            f"CREATE TABLE {_AUDIT}.trespasses (place VARCHAR(99), what VARCHAR(9), owner VARCHAR(99)) ENGINE = MyISAM",
            *(
                f"CREATE TRIGGER {table.name}_{what} BEFORE {what} ON {table.name} FOR EACH ROW "
                f"IF {row}.site <> '{SITES[number]}' THEN "
                f"INSERT INTO {_AUDIT}.trespasses VALUES ('{table.name}', '{what}', {row}.site); END IF"
                for table in Base.metadata.sorted_tables
                for what, row in (("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD"))
            ),
            database="coldchain",
        )


def _trespasses(pair: TwoPrimaries) -> Counter[tuple[object, ...]]:
    return Counter(
        (SITES[number], *row.values())
        for number, server in enumerate(pair.servers)
        for row in server.run(f"SELECT * FROM {_AUDIT}.trespasses")
    )


def _wait(facilities: list[TestFacility], holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "\n".join(facility.log()[-4000:] for facility in facilities)
        time.sleep(0.2)


def _processed(catalog: Catalog, count: int) -> bool:
    found = all_exposures(catalog)
    return len(found) == count and all(exposure.state is ExposureState.DONE for exposure in found)


def _assert_once(catalog: Catalog, exposure: Exposure) -> None:
    """Each step of an exposure is done once, whatever was interrupted before."""
    done = Counter(run.step for run in steps.runs_of(catalog, exposure.id) if run.state is StepState.DONE)
    assert done and set(done.values()) == {1}, (exposure.name, done)


@pytest.mark.parametrize(
    ("faults", "movies", "seed"),
    [
        pytest.param(2, 2, 1, id="2 faults", marks=pytest.mark.timeout(1500)),
        pytest.param(20, 40, 2, id="20 faults", marks=[pytest.mark.chaos, pytest.mark.timeout(3600)]),
    ],
)
def test_two_services_process_every_exposure_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: int, movies: int, seed: int
) -> None:
    """Each site's service takes in, copies and computes what its microscope writes, while links are cut and servers
    killed: every exposure is processed once, neither changes what is the other's, and in the end both are equal."""
    chance = random.Random(seed)
    kinds = [FAULTS[number % len(FAULTS)] for number in range(faults)]
    chance.shuffle(kinds)
    with two_primaries(tmp_path) as pair:
        _watch_owners(pair)
        facilities = [_facility(tmp_path, pair, number) for number in (0, 1)]
        with facilities[0].running(), facilities[1].running():
            _wait(facilities, lambda: all("is running" in facility.log() for facility in facilities))
            done, arrived = [], 0
            for fault in kinds:
                with fault(pair, chance) as (words, _):
                    for _ in range(max(1, movies // faults)):
                        arrived += 1
                        for facility in facilities:
                            write_small_movie(facility.camera / "visit" / f"{arrived:04}.tiff", seed=arrived)
                        time.sleep(chance.uniform(0.1, 3.0))
                done.append(words)
                pair.assert_never_stopped()
            catalogs = [open_catalog(pair.url(number), SITES[number]) for number in (0, 1)]
            for catalog in catalogs:
                _wait(facilities, lambda catalog=catalog: _processed(catalog, 2 * arrived))  # type: ignore[misc]
        lag = pair.wait_until_equal()
        found = assert_same(pair)
        for catalog in catalogs:
            assert len(sessions.list_all(catalog)) == 2
            for exposure in all_exposures(catalog):
                _assert_once(catalog, exposure)
            catalog.close()
        trespasses = _trespasses(pair)
        pair.assert_never_stopped()
        pair.servers[0].run(f"UPDATE sessions SET name = name WHERE site = '{SITES[1]}'", database="coldchain")
        assert _trespasses(pair), "what a site should not do is not noted"
    assert trespasses == {}
    measured = {
        "faults": Counter(done),
        "exposures": 2 * arrived,
        "all rows": sum(len(rows) for rows in found.values()),
        "interrupted": sum("INTERRUPTED" in str(row).upper() for row in found["step_runs"]),
        "lag": round(lag, 2),
    }
    with capsys.disabled():
        sys.stdout.write(f"{measured}\n")
