"""What happens to the service: its clock is set, its rights are taken, and another one works beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coldchain.model.files import ReplicaState
from tests.faults.bench import BIG, SMALL, Bench, catch, wait_until
from tests.faults.media import fill_up
from tests.faults.tried import long, tried
from tests.storage.drives import MakeDrive

NOBODY = 65534
LARGE = 500_000  # hashed without what a new process would have to load first
sizes = pytest.mark.parametrize("size", ["small", "big"])


@pytest.mark.root
@tried(
    "the clock set back an hour, and forward a year",
    made="libfaketime, while copies are made and a store is full",
    on="the service's process",
    says=("is full",),
)
@pytest.mark.parametrize(
    "jump",
    [timedelta(hours=-1), pytest.param(timedelta(days=366), marks=pytest.mark.chaos)],
    ids=["back", "forward"],
)
def test_the_clock_is_set(bench: Bench, make_drive: MakeDrive, jump: timedelta) -> None:
    """Copying goes on, and a store in trouble is tried again as soon as otherwise."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        pytest.skip("needs libfaketime (Debian package libfaketime)")
    offset = bench.folder / "offset"
    offset.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    drive = make_drive("tmpfs", size_bytes=16 << 20)
    bench.add_store("usb", drive.folder)
    bench.add_folder("raid")
    bench.start(environment=environment)
    bench.arrive("first.tiff")
    wait_until(lambda: bench.verified_on("raid", "usb") == 1)
    filler = fill_up(drive.folder, leave_bytes=SMALL)
    bench.arrive("movie.tiff", LARGE)
    bench.hurt()
    offset.write_text(f"{int(jump.total_seconds()):+d}\n")
    later = bench.arrive("later.tiff", LARGE)
    wait_until(lambda: bench.verified_on("raid") == 3)
    (at,) = [c.verified_at for f, c in bench.copies(ReplicaState.VERIFIED) if (f.id, c.store) == (later.id, "raid")]
    assert at is not None
    assert abs(at - datetime.now(UTC) - jump) < timedelta(minutes=10), "the clock was not set"
    filler.unlink()
    bench.healed()


@pytest.mark.root
@tried(
    "permissions lost",
    made="the service runs as another user than root; the modes of the store, or of the source, are taken from it",
    on="a folder",
    says=("Permission denied",),
)
@pytest.mark.parametrize(
    ("where", "size"),
    [
        ("the store", "big"),
        ("a folder of the store", "small"),
        ("the source", "small"),
        long("the store", "small"),
        long("a folder of the store", "big"),
        long("the source", "big"),
    ],
)
def test_permissions_are_lost(make_bench: Callable[..., Bench], open_folder: Path, where: str, size: str) -> None:
    """It is said who may not do what, and goes on when the right is given back."""
    if os.geteuid():
        pytest.skip("needs root, to give up its rights")
    bench = make_bench(open_folder)
    for store in ("raid", "archive"):
        bench.add_folder(store)
    bench.arrive("first.tiff")
    for path in (open_folder, *open_folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    bench.start(user=NOBODY)
    wait_until(lambda: bench.verified_on("raid", "archive") == 1)
    at_fault = {
        "the store": bench.roots["raid"].folder,
        "a folder of the store": bench.where("raid", "first.tiff").parent,
        "the source": bench.camera / "visit",
    }[where]
    mode = at_fault.stat().st_mode
    at_fault.chmod(0)
    copied = len(bench.arrive_all(size)) + 1
    bench.hurt()
    if where != "the source":
        wait_until(lambda: bench.verified_on("archive") == copied)
    at_fault.chmod(mode)
    bench.healed()


@tried(
    "two services on one catalog and the same stores",
    made="two processes that copy at once; then `kill -9` of one of them",
    on="folders",
)
@sizes
def test_two_services_copy_to_the_same_stores(bench: Bench, size: str) -> None:
    """`coldchain run` refuses the second; where two run after all, they do work twice, and no harm."""
    for store in ("raid", "archive"):
        bench.add_folder(store)
    bench.arrive_all(size)
    first = bench.start()
    bench.start_another()
    catch(lambda: bench.partials("raid"))
    bench.assert_sound()
    wait_until(lambda: bench.verified_on("raid", "archive") > 0)
    bench.kill_one(first)
    bench.arrive("later.tiff", BIG)
    bench.assert_sound()
    bench.healed()


@tried(
    "two sites on one catalog, each with stores of its own",
    made="two processes that copy at once; then `kill -9` of one of them, and its start",
    on="folders",
)
@sizes
def test_two_sites_share_a_catalog(make_bench: Callable[..., Bench], tmp_path: Path, size: str) -> None:
    """Each copies what it took in, to its own stores, also while the other is away."""
    here = make_bench(tmp_path / "here")
    there = make_bench(tmp_path / "there", site="there", catalog=here.folder / "catalog.sqlite")
    for bench in (here, there):
        for store in ("raid", "archive"):
            bench.add_folder(store)
        bench.arrive_all(size)
        bench.start()
    catch(lambda: there.partials("raid"))
    there.kill()
    here.assert_sound()
    there.assert_sound()
    here.arrive("later.tiff", BIG)
    here.healed()
    there.start_another()
    there.healed()
