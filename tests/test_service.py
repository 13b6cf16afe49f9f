"""The facility as a service: whole sessions, SIGTERM, kill -9, changed parameters, bad input and a full disk."""

from __future__ import annotations

import hashlib
import html
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from coldchain.catalog import events, exposures, replicas, results, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.formats.eer import write_eer
from coldchain.formats.mrc import write_mrc
from coldchain.model.files import ReplicaState
from coldchain.model.results import Step, StepState
from coldchain.model.session import ExposureState
from coldchain.simulate.faults import corrupt_strip
from tests.facility import (
    TestFacility,
    all_exposures,
    is_verified_everywhere,
    make_facility,
    standing_files,
    the_session,
    write_small_movie,
)


@pytest.fixture
def facility(tmp_path: Path) -> TestFacility:
    """A facility whose instrument knows its optics."""
    return make_facility(tmp_path / "facility")


def all_done(catalog: Catalog, count: int) -> bool:
    """Whether there are `count` exposures, all computed, and every file is verified on both stores."""
    found = all_exposures(catalog)
    return (
        len(found) == count
        and all(exposure.state is ExposureState.DONE for exposure in found)
        and all(is_verified_everywhere(catalog, file) for file in standing_files(catalog))
    )


def done_steps(catalog: Catalog) -> Counter[tuple[str, Step]]:
    """How often each step of each exposure was done."""
    return Counter(
        (exposure.name, run.step)
        for exposure in all_exposures(catalog)
        for run in steps.runs_of(catalog, exposure.id)
        if run.state is StepState.DONE
    )


def assert_copies_are_whole(facility: TestFacility, catalog: Catalog) -> None:
    """Each store holds, under the file's own path, the bytes that the camera wrote."""
    session = the_session(catalog)
    assert session is not None
    for file in standing_files(catalog):
        source = facility.camera / session.folder / file.relative_path
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert digest == file.sha256
        for store in ("live", "archive"):
            copy = facility.root / "stores" / store / "scope" / session.folder / file.relative_path
            assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest


def test_a_session_goes_through_everything_and_sigterm_ends_it(facility: TestFacility) -> None:
    """Movies that arrive are copied twice, verified and computed once; SIGTERM then ends the service with status 0."""
    with facility.running():
        for number in range(3):
            write_small_movie(facility.camera / "visit" / f"m{number}.tif", seed=number)
        facility.wait(lambda catalog: all_done(catalog, 3))
    with facility.catalog() as catalog:
        assert set(done_steps(catalog).values()) == {1}
        assert len(done_steps(catalog)) == 3 * len(Step)
        assert_copies_are_whole(facility, catalog)
        for exposure in all_exposures(catalog):
            found = results.newest(catalog, exposure.id)
            assert found.motion is not None
            assert found.ctf is not None
            assert found.picks is not None
            for run in steps.runs_of(catalog, exposure.id):
                assert all((facility.root / "results" / path).is_file() for path in run.outputs.values())


def progress(catalog: Catalog) -> int:
    """How many copies are verified and how many steps are done."""
    copies = [copy for file in standing_files(catalog) for copy in replicas.of_file(catalog, file.id)]
    return sum(copy.state is ReplicaState.VERIFIED for copy in copies) + done_steps(catalog).total()


# How far it has come when it is killed, in copies and steps that are done since it was started; what arrives at each
# start is good for 21. None: before its imports are through.
_THREE = (None, 2, 9)
_TEN = (None, *random.Random(20).choices(range(20), k=9))


@pytest.mark.parametrize(
    "moments", [pytest.param(_THREE, id="3 kills"), pytest.param(_TEN, id="10 kills", marks=pytest.mark.chaos)]
)
def test_kill_9_at_random_moments_loses_nothing_and_repeats_nothing(
    tmp_path: Path, moments: tuple[int | None, ...]
) -> None:
    """Killed at its start, while it copies and while it computes: there are exactly the exposures that were taken, each
    computed once, each copied twice."""
    facility = make_facility(tmp_path / "facility", workers=2)
    rng = random.Random(20)
    written = 0
    for moment in moments:
        with facility.catalog() as catalog:
            standing = progress(catalog)
        process = facility.start()
        for _ in range(3):
            write_small_movie(facility.camera / "visit" / f"m{written}.tif", seed=written)
            written += 1
            time.sleep(rng.uniform(0.0, 0.3))
        if moment is not None:
            facility.wait(lambda catalog, wanted=standing + moment: progress(catalog) >= wanted)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with facility.running():
        facility.wait(lambda catalog: all_done(catalog, written))
    with facility.catalog() as catalog:
        counted = done_steps(catalog)
        assert len(counted) == written * len(Step)
        assert set(counted.values()) == {1}
        assert len(standing_files(catalog)) == written
        assert_copies_are_whole(facility, catalog)
    leftovers = [path for path in facility.root.rglob("*.part") if "camera" not in path.parts]
    assert leftovers == []


def test_a_second_service_on_the_same_facility_is_refused(facility: TestFacility) -> None:
    """Two services would take the same exposures: the second says so, names the first, and ends with status 1."""
    with facility.running() as first:
        deadline = time.monotonic() + 60
        while "is running" not in facility.log():
            assert time.monotonic() < deadline, facility.log()
            time.sleep(0.1)
        second = facility.start()
        assert second.wait(60) == 1
        assert f"another `coldchain run` is at work on this facility (process {first.pid} on " in facility.log()


def test_a_changed_parameter_computes_again_what_depends_on_it_and_keeps_the_old(facility: TestFacility) -> None:
    """`session set --diameter` picks again and nothing else; both picks stand in the catalog."""
    write_small_movie(facility.camera / "visit" / "m.tif")
    with facility.running():
        facility.wait(lambda catalog: all_done(catalog, 1))
        facility.typed("session", "set", "visit", "--diameter", "80")
        facility.wait(lambda catalog: done_steps(catalog)[("m", Step.PICK)] == 2 and all_done(catalog, 1))
    with facility.catalog() as catalog:
        counted = done_steps(catalog)
        assert (counted[("m", Step.ALIGN)], counted[("m", Step.CTF)]) == (1, 1)
        newest = results.newest(catalog, all_exposures(catalog)[0].id)
        assert newest.picks is not None
        assert newest.picks.diameter_angstrom == 80


def test_an_exposure_waits_for_what_is_missing_and_says_what(tmp_path: Path) -> None:
    """Without pixel size and dose the exposure waits with the remedy; `session set` lets it go on."""
    facility = make_facility(tmp_path / "facility", optics="voltage_kilovolt = 300")
    write_small_movie(facility.camera / "visit" / "m.tif")

    def waits(catalog: Catalog) -> bool:
        return any("pixel size and dose are not known" in exposure.reason for exposure in all_exposures(catalog))

    with facility.running():
        facility.wait(waits)
        with facility.catalog() as catalog:
            assert "--pixel-size … --dose …" in all_exposures(catalog)[0].reason
        facility.typed("session", "set", "visit", "--pixel-size", "2", "--dose", "20")
        facility.wait(lambda catalog: all_done(catalog, 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB: of an alignment's files the spectrum alone has 1."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_results_disk_is_said_and_waited_for(facility: TestFacility, small_disk: Path) -> None:
    """While the results' disk is full the exposure is ready with the reason; with room it is computed by itself."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (4072 << 10))
    (facility.root / "results").symlink_to(small_disk)
    write_small_movie(facility.camera / "visit" / "m.tif")

    def said(catalog: Catalog) -> bool:
        return any("the disk is full" in event.message for event in events.recent(catalog, limit=500))

    with facility.running():
        facility.wait(said)
        with facility.catalog() as catalog:
            assert all_exposures(catalog)[0].state in {ExposureState.READY, ExposureState.PROCESSING}
        ballast.unlink()
        facility.wait(lambda catalog: all_done(catalog, 1))


def test_bad_input_fails_alone_and_says_why(facility: TestFacility, tmp_path: Path) -> None:
    """Truncated, corrupt, empty and strangely named files each give one stated reason; the good ones are computed."""
    visit = facility.camera / "visit"
    good = tmp_path / "good.tif"
    write_small_movie(good)
    visit.mkdir(parents=True)
    strange = ["with space.tif", "quo'te\"s.tif", "ünïcödé.tif", "new\nline.tif", "$(touch evil).tif", "a;b&c.tif"]
    for name in strange:
        shutil.copy(good, visit / name)
    whole = good.read_bytes()
    (visit / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (visit / "empty.tif").write_bytes(b"")
    write_mrc(tmp_path / "good.mrc", np.ones((4, 64, 64), np.int16), pixel_size_angstrom=2.0)
    (visit / "truncated.mrc").write_bytes((tmp_path / "good.mrc").read_bytes()[:-100])
    (visit / "no-movie.tif").write_bytes(b"MZ this is no TIFF at all" * 100)
    write_mrc(visit / "zeros.mrc", np.zeros((4, 64, 64), np.int16), pixel_size_angstrom=2.0)
    shutil.copy(good, visit / "corrupt-strip.tif")
    corrupt_strip(visit / "corrupt-strip.tif", frame=1)
    write_eer(tmp_path / "good.eer", np.ones((4, 64, 64), np.uint8))
    (visit / "short.eer").write_bytes((tmp_path / "good.eer").read_bytes()[:-300])
    (tmp_path / "outside.tif").write_bytes(whole)
    (visit / "link.tif").symlink_to(tmp_path / "outside.tif")
    bad = {"truncated", "empty", "no-movie", "zeros", "corrupt-strip", "short"}

    def through(catalog: Catalog) -> bool:
        found = {exposure.name: exposure for exposure in all_exposures(catalog)}
        good_ones = [found.get(name.removesuffix(".tif")) for name in strange]
        return all(e is not None and e.state is ExposureState.DONE for e in good_ones) and all(
            name in found and found[name].state is ExposureState.QUARANTINED for name in bad
        )

    with facility.running():
        facility.wait(through)
        page = session_page(facility)
        with facility.catalog() as catalog:
            for exposure in all_exposures(catalog):
                assert html.escape(exposure.reason, quote=True)[:60] in page.replace("&#39;", "&#x27;")
    with facility.catalog() as catalog:
        found = {exposure.name: exposure for exposure in all_exposures(catalog)}
        assert "link" not in found
        assert any("link.tif" in event.message for event in events.recent(catalog, limit=500))
        for name in bad:
            assert found[name].reason
        by_path = {file.relative_path: file for file in standing_files(catalog)}
        assert is_verified_everywhere(catalog, by_path["truncated.tif"]), (
            "a damaged file is still the only one there is"
        )
    assert not (facility.root / "evil").exists()
    assert not Path("evil").exists()


def session_page(facility: TestFacility) -> str:
    """The page of the facility's session, as its service serves it."""
    with facility.catalog() as catalog:
        session = the_session(catalog)
        assert session is not None
    return httpx.get(f"{facility.url()}/sessions/{session.id}", timeout=60).raise_for_status().text


def test_a_full_store_stops_nothing_else_and_is_filled_when_there_is_room(
    facility: TestFacility, small_disk: Path
) -> None:
    """While one store is full the other gets its copy, the exposure is computed and the page says why; with room the
    copy is made by itself."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (4092 << 10))
    (facility.root / "stores" / "live").rmdir()
    (facility.root / "stores" / "live").symlink_to(small_disk)
    write_small_movie(facility.camera / "visit" / "m.tif")

    def half(catalog: Catalog) -> bool:
        states = {
            (replica.store, replica.state)
            for file in standing_files(catalog)
            for replica in replicas.of_file(catalog, file.id)
        }
        done = [e.state for e in all_exposures(catalog)] == [ExposureState.DONE]
        return done and states == {("live", ReplicaState.FAILED), ("archive", ReplicaState.VERIFIED)}

    with facility.running():
        facility.wait(half)
        assert "full" in session_page(facility)
        ballast.unlink()
        facility.wait(lambda catalog: all_done(catalog, 1))


def test_a_gain_of_another_shape_quarantines_with_both_shapes(facility: TestFacility) -> None:
    """A gain that does not fit is said with both shapes; the right one, given later, lets the exposure go on."""
    visit = facility.camera / "visit"
    visit.mkdir()
    write_mrc(visit / "gain.mrc", np.ones((96, 96), np.float32), pixel_size_angstrom=2.0)
    write_small_movie(visit / "m.tif")
    with facility.running():
        facility.wait(lambda c: any(e.state is ExposureState.QUARANTINED for e in all_exposures(c)))
        with facility.catalog() as catalog:
            reason = all_exposures(catalog)[0].reason
            assert "96" in reason
            assert "128" in reason
        facility.typed("session", "set", "visit", "--gain", "none")
        facility.wait(lambda catalog: all_done(catalog, 1))


def test_a_quarantined_exposure_is_retried_on_request(facility: TestFacility) -> None:
    """`session reprocess --quarantined` tries again what failed, and leaves the rest alone."""
    visit = facility.camera / "visit"
    write_mrc_folder = visit
    write_mrc_folder.mkdir()
    write_mrc(visit / "zeros.mrc", np.zeros((4, 64, 64), np.int16), pixel_size_angstrom=2.0)
    write_small_movie(visit / "m.tif")

    def settled(catalog: Catalog) -> bool:
        return {e.state for e in all_exposures(catalog)} == {ExposureState.DONE, ExposureState.QUARANTINED}

    with facility.running():
        facility.wait(settled)
        with facility.catalog() as catalog:
            session = the_session(catalog)
            assert session is not None
            zeros = exposures.by_name(catalog, session.id, "zeros")
            assert zeros is not None
            before = len(steps.runs_of(catalog, zeros.id))
            assert sessions.reprocess(catalog, session.id, only_quarantined=True, force=False) == 1
        facility.wait(lambda catalog: len(steps.runs_of(catalog, zeros.id)) > before and settled(catalog))
    with facility.catalog() as catalog:
        assert done_steps(catalog)[("m", Step.ALIGN)] == 1
