"""What happens to drives: the power fails, they fill up, rot, are swapped, and lose their drivers."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coldchain.catalog import replicas, stores
from coldchain.errors import VerificationError
from coldchain.storage.copies.copying import RINGS
from coldchain.storage.posix.store import PosixStore
from tests.faults.bench import BIG, SMALL, Bench, catch, content_of, wait_until
from tests.faults.media import cut, fill_up, flip, plug_in_again, taken_out, use_up_names
from tests.faults.tried import Outcome, long, tried
from tests.storage.drives import Drive, MakeDrive, _on_loop

pytestmark = pytest.mark.root
sizes = pytest.mark.parametrize("size", ["small", "big"])
MOMENTS = {"while they are written": Bench.partials, "while they get their names": Bench.named}


def test_a_power_cut_takes_what_was_not_made_durable(make_drive: MakeDrive) -> None:
    """The fault bites: a file that nobody synced is gone, or empty, after the cut; one that was synced is there."""
    drive = make_drive("ext4")
    for name in ("synced", "not"):
        with (drive.folder / name).open("wb") as file:
            file.write(b"content")
            file.flush()
            if name == "synced":
                os.fsync(file.fileno())
    with (drive.folder / "not").open("ab") as file:
        file.write(bytes(1 << 20))
    cut(drive)
    plug_in_again(drive)
    assert (drive.folder / "synced").read_bytes() == b"content"
    left = drive.folder / "not"
    assert not left.exists() or left.stat().st_size < 1 << 20


@tried(
    "power cut of a drive in the middle of a copy",
    made="`EXT4_IOC_SHUTDOWN` without flushing the log; unmounted and mounted again",
    on="ext4 on a loop device",
    says=("Input/output error",),
)
@sizes
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_drives_power_is_cut(bench: Bench, make_drive: MakeDrive, size: str, moment: str) -> None:
    """What was verified before the cut is there after it; the rest is copied when the drive is back."""
    drive = make_drive("ext4", size_bytes=64 << 20)
    bench.add_store("usb", drive.folder)
    bench.add_folder("raid")
    bench.arrive_all(size)
    bench.start()
    catch(lambda: MOMENTS[moment](bench, "usb"))
    cut(drive)
    bench.arrive("later.tiff")
    bench.hurt(away=["usb"])
    plug_in_again(drive)
    bench.assert_sound()
    bench.healed()


@tried(
    "power cut of the machine in the middle of a copy",
    made="`EXT4_IOC_SHUTDOWN` without flushing the log under catalog and store, then `kill -9`; mounted again",
    on="ext4 on a loop device, with the catalog on it",
    outcome=(Outcome.AFTER_RESTART,),
)
@sizes
@pytest.mark.parametrize(
    "cuts", [pytest.param(2, id="2 cuts"), pytest.param(10, id="10 cuts", marks=pytest.mark.chaos)]
)
def test_the_machines_power_is_cut(
    make_bench: Callable[..., Bench], make_drive: MakeDrive, tmp_path: Path, size: str, cuts: int
) -> None:
    """The catalog never says more than what the medium holds, whenever the power fails."""
    chance = random.Random(f"{size} {cuts}")
    drive = make_drive("ext4", size_bytes=(64 << 20) + cuts * (8 << 20))
    bench = make_bench(tmp_path, catalog=drive.folder / "catalog.sqlite")
    (drive.folder / "store").mkdir()
    bench.add_store("raid", drive.folder / "store")
    subprocess.run(["sync", "-f", str(drive.folder)], check=True)
    for turn in range(cuts):
        names = [f"{turn}/{n}.tiff" for n in range(40 if size == "small" else 2)]
        for name in names:
            bench.arrive(name, SMALL if size == "small" else BIG // 2)
        bench.start()
        if chance.random() < 0.5:
            catch(lambda: bench.partials("raid"))
        else:
            catch(lambda names=names: bench.where("raid", names[-1]).exists())  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.02))
        cut(drive)
        bench.kill()
        bench.catalog.close()
        plug_in_again(drive)
        bench.reopen()
        bench.assert_sound()
    bench.start()
    bench.healed()


def _full(bench: Bench, make_drive: MakeDrive, kind: str) -> Drive:
    drive = make_drive(kind, size_bytes=24 << 20, inodes=200 if kind in ("ext4", "tmpfs") else None)
    bench.add_store("usb", drive.folder)
    bench.add_folder("raid")
    bench.start_well()
    return drive


@tried(
    "destination full, at a byte",
    made="a file that leaves room for some of the copies; removed again",
    on="ext4, exFAT and NTFS on loop devices, tmpfs",
    says=("is full",),
)
@pytest.mark.parametrize(
    ("kind", "size"),
    [("ext4", "small"), ("tmpfs", "small"), ("exfat", "big"), long("ext4", "big"), long("ntfs", "small")],
)
def test_a_drive_is_full(bench: Bench, make_drive: MakeDrive, kind: str, size: str) -> None:
    """What has room is copied, the other store gets everything, and the rest follows when there is room again."""
    drive = _full(bench, make_drive, kind)
    filler = fill_up(drive.folder, leave_bytes=BIG + (1 << 20) if size == "big" else 20 * SMALL)
    copied = len(bench.arrive_all(size)) + 1
    bench.hurt()
    wait_until(lambda: bench.verified_on("raid") == copied)
    assert bench.verified_on("usb") < copied
    filler.unlink()
    bench.healed()


@tried(
    "destination full, at an inode",
    made="empty files that leave inodes for some of the copies; removed again",
    on="ext4 on a loop device, tmpfs",
    says=("is full",),
)
@pytest.mark.parametrize(
    ("kind", "size"), [("ext4", "small"), ("tmpfs", "big"), long("ext4", "big"), long("tmpfs", "small")]
)
def test_a_drive_has_no_inode_left(bench: Bench, make_drive: MakeDrive, kind: str, size: str) -> None:
    """As with bytes: full is full, and is said with the number of inodes."""
    drive = _full(bench, make_drive, kind)
    fillers = use_up_names(drive.folder, leave=1 if size == "big" else 20)
    copied = len(bench.arrive_all(size)) + 1
    bench.hurt()
    assert "inodes are free" in bench.says()
    wait_until(lambda: bench.verified_on("raid") == copied)
    for filler in fillers:
        filler.unlink()
    bench.healed()


@tried(
    "a device that fails beneath its file system, on write and on fsync",
    made="a loop device whose medium has no room for what it promises; then it gets it, is checked, and mounted again",
    on="ext4 on a loop device on tmpfs",
    says=("Input/output error", "Read-only file system", "is full"),
)
@sizes
def test_a_device_cannot_write(bench: Bench, make_drive: MakeDrive, size: str) -> None:
    """A device that fails below its file system is said to, and is copied to when it is well."""
    beneath = make_drive("tmpfs", size_bytes=9 << 20)
    (beneath.folder / "disk").mkdir()
    drive = _on_loop("ext4", beneath.folder / "disk", 48 << 20, ["-J", "size=4"])
    try:
        bench.add_store("usb", drive.folder)
        bench.add_folder("raid")
        bench.start_well()
        fill_up(beneath.folder, leave_bytes=0)
        bench.arrive_all(size)
        bench.hurt(away=["usb"])
        subprocess.run(["mount", "-o", "remount,size=96M", str(beneath.folder)], check=True)
        with taken_out(drive):
            # Folders that it could not write whole stay broken until somebody mends them: 1 says that something was.
            checked = subprocess.run(["e2fsck", "-fy", str(drive.device)], check=False, capture_output=True)
            assert checked.returncode in (0, 1), checked.stdout.decode()
        bench.healed()
    finally:
        bench.kill()
        subprocess.run(["umount", str(drive.folder)], check=True)
        subprocess.run(["losetup", "--detach", drive.device], check=True)


@tried(
    "a byte flipped on the medium between writing and reading back: first, middle, last",
    made="a bit changed in the device's image while the copy has no name yet",
    on="ext4 on a loop device",
    says=("gave back",),
)
@pytest.mark.parametrize(
    ("size", "place"),
    [
        ("big", "first"),
        ("small", "middle"),
        ("big", "last"),
        long("small", "first"),
        long("big", "middle"),
        long("small", "last"),
    ],
)
def test_a_byte_flips_before_it_is_read_back(bench: Bench, make_drive: MakeDrive, size: str, place: str) -> None:
    """The page cache knows nothing of it; reading back does. The copy is made again."""
    drive = make_drive("ext4", size_bytes=48 << 20)
    bench.add_store("usb", drive.folder)
    files = bench.arrive_all("small") if size == "small" else [bench.arrive("big.tiff", BIG)]
    pause = bench.folder / "paused"
    bench.start(pause_at=str(pause))
    catch(pause.exists)
    file = files[len(files) // 2]
    content = content_of(file.relative_path, file.size_bytes)
    flip(drive, content, {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[place])
    pause.with_suffix(".over").touch()
    pause.unlink()
    bench.hurt()
    bench.healed()


@tried(
    "a byte flipped on the medium after verification: first, middle, last",
    made="a bit changed in the image of the unmounted drive; found by reading the copies again",
    on="ext4, exFAT and NTFS on loop devices",
    says=("bytes of SHA-256",),
    outcome=(Outcome.BY_ITSELF, Outcome.KEPT_ASIDE),
)
@pytest.mark.parametrize(
    ("kind", "place", "size_bytes"),
    [("exfat", "middle", BIG), ("ext4", "last", SMALL), long("ext4", "first", BIG), long("ntfs", "last", BIG)],
)
def test_a_byte_flips_after_verification(
    bench: Bench, make_drive: MakeDrive, kind: str, place: str, size_bytes: int
) -> None:
    """Reading again finds it, the catalog calls the copy damaged, and it is made again; the bad bytes are kept."""
    drive = make_drive(kind, size_bytes=48 << 20)
    bench.add_store("usb", drive.folder)
    bench.start_well()
    file = bench.arrive("movie.tiff", size_bytes)
    wait_until(lambda: bench.verified_on("usb") == 2)
    content = content_of(file.relative_path, file.size_bytes)
    with taken_out(drive):
        flip(drive, content, {"first": 0, "middle": size_bytes // 2, "last": size_bytes - 1}[place])
    (copy,) = replicas.of_file(bench.catalog, file.id)
    store = PosixStore("usb", drive.folder, identity=stores.find(bench.catalog, "usb").identity)
    with pytest.raises(VerificationError) as found, RINGS.borrow() as ring:
        name = copy.stored_as or f"{bench.instrument}/visit/{file.relative_path}"
        store.confirm(name, copy.sha256 or "", file.size_bytes, ring)
    replicas.record_check(bench.catalog, copy.id, detail=str(found.value))
    bench.hurt()
    bench.healed()


@tried(
    "a truncated file, or another, of the right name in the destination",
    made="empty, half, longer, and of the right size with other bytes, planted before the copy",
    on="ext4, exFAT and NTFS on loop devices",
    says=("what stood under its name is kept as",),
    outcome=(Outcome.BY_ITSELF, Outcome.KEPT_ASIDE),
)
@pytest.mark.parametrize(
    ("kind", "size_bytes"),
    [("ext4", BIG), ("exfat", SMALL), ("ntfs", SMALL), long("ext4", SMALL), long("exfat", BIG), long("ntfs", BIG)],
)
def test_something_else_has_the_name(bench: Bench, make_drive: MakeDrive, kind: str, size_bytes: int) -> None:
    """It is taken for no copy, is overwritten by none, and stays beside the whole one."""
    drive = make_drive(kind, size_bytes=64 << 20)
    bench.add_store("usb", drive.folder)
    bench.start_well()
    true = content_of("half.tiff", size_bytes)
    standing = {"empty": b"", "half": true[: size_bytes // 2], "long": true + b"more", "other": bytes(size_bytes)}
    for name, content in standing.items():
        bench.write(f"{name}.tiff", size_bytes)
        bench.plant("usb", f"{name}.tiff", content)
    for name in standing:
        bench.journal(f"{name}.tiff")
    bench.hurt()
    bench.healed()
    assert sum(".replaced-" in path.name for path in bench.named("usb")) == len(standing)


@tried(
    "a destination swapped for an empty disk",
    made="unmounted while it is in use, and an empty drive mounted in its place; swapped back",
    on="ext4 on loop devices",
    says=("bears no identity",),
)
@sizes
def test_a_drive_is_swapped_for_an_empty_one(bench: Bench, make_drive: MakeDrive, size: str) -> None:
    """Nothing is written to what lies in the store's place; the store goes on when it is back."""
    drive, empty = make_drive("ext4", size_bytes=48 << 20), make_drive("ext4", size_bytes=48 << 20)
    bench.add_store("usb", drive.folder)
    bench.add_folder("raid")
    bench.start_well()
    copied = len(bench.arrive_all(size)) + 1
    catch(lambda: bench.partials("usb"))
    subprocess.run(["umount", "-l", str(drive.folder)], check=True)
    subprocess.run(["mount", empty.device, str(drive.folder)], check=True)
    bench.arrive("later.tiff")
    bench.hurt(away=["usb"])
    wait_until(lambda: bench.verified_on("raid") == copied + 1)
    assert [path.name for path in drive.folder.iterdir()] == ["lost+found"]
    wait_until(lambda: subprocess.run(["umount", str(drive.folder)], check=False, capture_output=True).returncode == 0)
    wait_until(lambda: not _is_mounted(drive.device))
    drive.mount()
    bench.healed()


@tried(
    "a drive's driver dies",
    made="`kill -9` of the FUSE process; unmounted and mounted again",
    on="exFAT and NTFS on loop devices",
    says=("Transport endpoint is not connected", "Software caused connection abort", "is not there"),
)
@pytest.mark.parametrize(("kind", "size"), [("exfat", "small"), long("ntfs", "big")])
def test_a_drives_driver_dies(bench: Bench, make_drive: MakeDrive, kind: str, size: str) -> None:
    """The store is away until it is mounted again, and goes on then."""
    drive = make_drive(kind, size_bytes=64 << 20)
    bench.add_store("usb", drive.folder)
    bench.add_folder("raid")
    bench.start_well()
    subprocess.run(["sync", "-f", str(drive.folder)], check=True)
    copied = len(bench.arrive_all(size)) + 1
    catch(lambda: bench.partials("usb"))
    (driver,) = [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] and str(drive.folder) in p.info["cmdline"]
    ]
    driver.kill()
    bench.hurt(away=["usb"])
    wait_until(lambda: bench.verified_on("raid") == copied)
    subprocess.run(["umount", "-l", str(drive.folder)], check=True)
    wait_until(lambda: not _is_mounted(drive.device))
    drive.mount()
    bench.healed()


def _is_mounted(device: str) -> bool:
    return any(line.split()[0] == device for line in Path("/proc/mounts").read_text().splitlines())
