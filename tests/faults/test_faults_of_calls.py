"""What single calls of the system may answer: errors on reading, writing, syncing and reading back, no room at a byte,
other bytes than were written; and a source that changes while it is read."""

from __future__ import annotations

import errno
import os

import pytest

from tests.faults.bench import BIG, SMALL, Bench, wait_until
from tests.faults.passthrough import Faulty, Rule
from tests.faults.tried import long, tried

pytestmark = pytest.mark.root
sizes = pytest.mark.parametrize("size", ["small", "big"])
ONE_OF = {"small": "small 7", "big": "big 0"}
_FUSE = "FUSE, passing through to a folder"


def _on(bench: Bench, faulty: Faulty) -> None:
    bench.add_store("usb", faulty.folder, beneath=faulty.beneath)
    bench.add_folder("raid")
    bench.start_well()


@tried(
    "EIO on reading the source",
    made="a rule of the file system: reads of one file fail",
    on=_FUSE,
    says=("reading the source failed: Input/output error",),
)
@sizes
def test_a_source_cannot_be_read(bench: Bench, faulty: Faulty, size: str) -> None:
    """The file fails alone, with its reason; the others are copied; it is copied when it can be read."""
    bench.camera = faulty.folder
    for store in ("raid", "archive"):
        bench.add_folder(store)
    bench.start_well()
    copied = len(bench.arrive_all(size))
    faulty.fail(Rule("read", ONE_OF[size], at=0 if size == "small" else BIG // 2, code=errno.EIO))
    bench.arrive(f"{ONE_OF[size]} too", BIG if size == "big" else SMALL)
    wait_until(lambda: "reading the source failed" in bench.says())
    faulty.heal()
    bench.hurt()
    wait_until(lambda: bench.verified_on("raid") == copied + 2)
    bench.healed()


@tried(
    "EIO on writing, syncing, naming and reading back a copy",
    made="a rule of the file system: that call fails",
    on=_FUSE,
    says=("failed: Input/output error",),
)
@pytest.mark.parametrize(
    ("call", "size"),
    [
        ("create", "small"),
        ("write", "big"),
        ("fsync", "small"),
        ("read", "big"),
        ("link", "small"),
        ("fsyncdir", "big"),
        long("create", "big"),
        long("write", "small"),
        long("fsync", "big"),
        long("read", "small"),
        long("link", "big"),
        long("fsyncdir", "small"),
    ],
)
def test_a_stores_call_fails(bench: Bench, faulty: Faulty, size: str, call: str) -> None:
    """Nothing of the store is verified meanwhile; the other store gets everything."""
    _on(bench, faulty)
    at = BIG // 2 if size == "big" and call in ("read", "write") else 0
    faulty.fail(Rule(call, "/visit" if call == "fsyncdir" else ".part", at=at, code=errno.EIO))
    copied = len(bench.arrive_all(size)) + 1
    bench.hurt()
    wait_until(lambda: bench.verified_on("raid") == copied)
    assert bench.verified_on("usb") == 1
    bench.assert_sound()
    faulty.heal()
    bench.healed()


@tried(
    "destination full, at exactly a byte",
    made="a rule of the file system: `ENOSPC` from that byte on: the first, the last of a page, the last of the file",
    on=_FUSE,
    says=("is full",),
)
@pytest.mark.parametrize("at", [0, 4096, BIG - 1, long(4095), long(SMALL - 1)])
def test_there_is_no_room_from_a_byte_on(bench: Bench, faulty: Faulty, at: int) -> None:
    """However much of a copy was written, none of it gets a name."""
    _on(bench, faulty)
    faulty.fail(Rule("write", ".part", at=at, code=errno.ENOSPC))
    bench.arrive("movie.tiff", BIG if at > SMALL else SMALL)
    bench.hurt()
    wait_until(lambda: bench.verified_on("raid") == 2)
    assert len(bench.named("usb")) == 1
    faulty.heal()
    bench.healed()


@tried(
    "a byte comes back as another: first, middle, last",
    made="a rule of the file system: one bit of what is read is another",
    on=_FUSE,
    says=("gave back",),
)
@pytest.mark.parametrize(
    ("size", "place"),
    [
        ("small", "first"),
        ("big", "middle"),
        ("small", "last"),
        long("big", "first"),
        long("small", "middle"),
        long("big", "last"),
    ],
)
def test_a_byte_comes_back_as_another(bench: Bench, faulty: Faulty, size: str, place: str) -> None:
    """Of a batch, only the copy that came back otherwise fails."""
    _on(bench, faulty)
    length = BIG if size == "big" else SMALL + 7
    at = {"first": 0, "middle": length // 2, "last": length - 1}[place]
    faulty.fail(Rule("read", ONE_OF[size], flip=at))
    copied = len(bench.arrive_all(size)) + 1
    bench.hurt()
    wait_until(lambda: bench.verified_on("usb") == copied - 1)
    faulty.heal()
    bench.healed()


@tried(
    "the source changes while it is read: grows, is rewritten, is replaced",
    made="its reading held up half way, and the file changed meanwhile",
    on="a camera's folder on FUSE",
    says=("the source changed while it was being read", "as catalogued"),
)
@pytest.mark.parametrize(("size", "change"), [("big", "grows"), ("big", "rewritten"), ("small", "replaced")])
def test_the_source_changes_while_it_is_read(bench: Bench, faulty: Faulty, size: str, change: str) -> None:
    """What was read is not published; the new version is copied when it was taken in."""
    bench.camera = faulty.folder
    for store in ("raid", "archive"):
        bench.add_folder(store)
    bench.start_well()
    name = "movie.tiff"
    before, after = (BIG, BIG + 1000 if change == "grows" else BIG) if size == "big" else (SMALL, SMALL)
    faulty.fail(Rule("read", name, at=before // 2, hold=True))
    bench.arrive(name, before)
    wait_until(faulty.is_holding)
    if change == "replaced":
        (faulty.beneath / "visit" / name).unlink()
    bench.write(name, after, through=faulty.beneath)
    status = (faulty.beneath / "visit" / name).stat()
    os.utime(faulty.beneath / "visit" / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    faulty.heal()
    bench.hurt()
    assert not any(name in path.name for store in bench.roots for path in bench.named(store))
    bench.journal(name)
    bench.healed()
