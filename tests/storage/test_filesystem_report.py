"""What file systems tell, from samples of what their programs print and from stand-ins for them on the path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.errors import StorageError
from coldchain.storage import filesystem_report
from coldchain.storage.filesystem_report import (
    FilesystemReport,
    Quota,
    beegfs_quota,
    beegfs_striping,
    gpfs_quota,
    gpfs_striping,
    report,
    table_quota,
)
from coldchain.storage.mounts import NOWHERE, Mount, mount_in, mount_of

LUSTRE = """Disk quotas for usr em (uid 6000):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
      /lustre/em  309200*   300000   400000  6d23h   12*  10   20  expired
"""
LUSTRE_QUIET_LONG = """/lustre/a-mount-point-with-a-long-name
                 [5000]       0   20480       -     [3]       0       0       -
Some errors happened when getting quota info. Some devices may be not working.
"""
LINUX = """Disk quotas for user em (uid 6000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sdb1    1024    2048       0       0       7     100     200       0
"""
LINUX_NONE = "Disk quotas for user em (uid 6000): none\n"
GPFS_HEADER = (
    "mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:blockQuota:blockLimit:"
    "blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:filesInDoubt:filesGrace:remarks:quota:defQuota:fid:"
    "filesetname:\n"
)
GPFS = GPFS_HEADER + (
    "mmlsquota::0:1:::gpfs0:USR:6000:em:1000:0:0:0:none:5:0:0:0:none:i:on:off:::\n"
    "mmlsquota::0:1:::gpfs0:GRP:600:facility:9000:9500:10000:0:none:50:0:500:0:none:e:on:off:::\n"
    "mmlsquota::0:1:::gpfs0:FILESET:3:krios%3A2:9000:0:90000:0:none:50:60:0:0:none:e:on:off:::\n"
)
GPFS_STRIPES = """mmlsfs::HEADER:version:reserved:reserved:deviceName:fieldName:data:remarks:
mmlsfs::0:1:::gpfs0:minFragmentSize:8192::
mmlsfs::0:1:::gpfs0:blockSize:4194304::
mmlsfs::0:1:::gpfs0:defaultDataReplicas:2::
mmlsfs::0:1:::gpfs0:defaultMountPoint:%2Fgpfs0::
"""
BEEGFS = "name,id,size,hard,files,hard\nem,6000,1073741824,10737418240,1000,unlimited\n"
BEEGFS_STRIPES = """EntryID: root
Metadata node: meta1 [ID: 1]
Stripe pattern details:
+ Type: RAID0
+ Chunksize: 512K
+ Number of storage targets: desired: 4
+ Storage Pool: 1 (Default)
"""


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (table_quota, LUSTRE, Quota(400_000 * 1024, 309_200 * 1024, 20)),
        (table_quota, LUSTRE_QUIET_LONG, Quota(20_480 * 1024, 5000 * 1024, None)),
        (table_quota, LINUX, Quota(2048 * 1024, 1024 * 1024, 200)),
        (table_quota, LINUX_NONE, Quota()),
        (gpfs_quota, GPFS, Quota(10_000 * 1024, 9000 * 1024, 500)),
        (gpfs_quota, GPFS_HEADER, Quota()),
        (beegfs_quota, BEEGFS, Quota(10 << 30, 1 << 30, None)),
        (beegfs_quota, "beegfs-ctl: no such user\n", Quota()),
    ],
)
def test_a_quota_is_read(read: Callable[[str], Quota], text: str, expected: Quota) -> None:
    """Bytes, limits and files are what the program says: hard limits before soft, the nearest of several."""
    assert read(text) == expected


def test_striping_is_read() -> None:
    """How a new file is spread over servers, in one line."""
    assert gpfs_striping(GPFS_STRIPES) == "blocks of 4194304 bytes, data replicas: 2"
    assert beegfs_striping(BEEGFS_STRIPES) == "Type: RAID0, Chunksize: 512K, Number of storage targets: desired: 4"


@settings(max_examples=30)
@given(text=st.text(max_size=200) | st.text("0123456789 :\n,*[]-mlsquota", max_size=400))
def test_nothing_that_a_program_says_breaks_anything(text: str) -> None:
    """Whatever is printed, it is a quota or none."""
    for read in (table_quota, gpfs_quota, beegfs_quota):
        for before in ("", GPFS_HEADER):
            assert isinstance(read(before + text), Quota)
    assert isinstance(gpfs_striping(text) + beegfs_striping(text), str)


def test_numbers_without_end_are_no_quota() -> None:
    """A number of thousands of digits is nothing that a file system says."""
    digits = "9" * 10_000
    assert table_quota(f"/x {digits} 0 0 - 1 0 0 -") == Quota()
    assert beegfs_quota(f"em,1,{digits},0,0,0") == Quota()


MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:31 / /mnt/krios\0402 rw - lustre 10.0.0.1@tcp:/em\134x rw,flock
37 22 0:32 / /gone
38 broken
"""


def test_a_mount_is_found_by_its_number() -> None:
    """Type, source and place come from the mount's own line, blanks and backslashes in them too."""
    assert mount_in(MOUNTINFO, "22") == Mount("/", "ext4", "/dev/sda1")
    assert mount_in(MOUNTINFO, "36") == Mount("/mnt/krios 2", "lustre", "10.0.0.1@tcp:/em\\x")
    assert mount_in(MOUNTINFO, "3") == mount_in(MOUNTINFO, "37") == mount_in(MOUNTINFO, "38") == NOWHERE


PRINTS = {"lustre": "lfs", "gpfs": "mmlsquota mmlsfs", "beegfs": "beegfs-ctl", "ext4": "quota"}
SAID = {
    "lfs": f"if [ $1 = quota ]; then cat <<'E'\n{LUSTRE}E\nelse echo 'stripe_count:  4  stripe_size:   1048576'; fi",
    "mmlsquota": f"cat <<'E'\n{GPFS}E",
    "mmlsfs": f"cat <<'E'\n{GPFS_STRIPES}E",
    "beegfs-ctl": f"if [ $1 = --getquota ]; then cat <<'E'\n{BEEGFS}E\nelse cat <<'E'\n{BEEGFS_STRIPES}E\nfi",
    "quota": f"cat <<'E'\n{LINUX}E\nexit 1",
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program of that name on the path; it writes its arguments down, one on a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, script: str) -> Path:
        asked = tmp_path / f"{name}.asked"
        path = folder / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {asked}\n{script}\n')
        path.chmod(0o755)
        return asked

    return make


def mounted_as(monkeypatch: pytest.MonkeyPatch, kind: str, source: str = "em") -> None:
    """Have every mount be of that type."""
    monkeypatch.setattr(filesystem_report, "mount_of", lambda descriptor: Mount("/mnt/a b;c", kind, source))


@pytest.mark.parametrize(
    ("kind", "source", "expected", "striping"),
    [
        (
            "lustre",
            "10.0.0.1@tcp:/em",
            Quota(400_000 * 1024, 309_200 * 1024, 20),
            "stripe_count: 4 stripe_size: 1048576",
        ),
        ("gpfs", "/dev/gpfs0", Quota(10_000 * 1024, 9000 * 1024, 500), "blocks of 4194304 bytes, data replicas: 2"),
        (
            "beegfs",
            "beegfs_nodev",
            Quota(10 << 30, 1 << 30, None),
            "Type: RAID0, Chunksize: 512K, Number of storage targets: desired: 4",
        ),
        ("ext4", "/dev/sdb1", Quota(2048 * 1024, 1024 * 1024, 200), ""),
    ],
)
def test_a_file_systems_own_programs_are_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: Callable[[str, str], Path],
    kind: str,
    source: str,
    expected: Quota,
    striping: str,
) -> None:
    """Each kind's programs are run without a shell, and what they say is reported beside what statvfs tells."""
    asked = [program(name, SAID[name]) for name in PRINTS[kind].split()]
    mounted_as(monkeypatch, kind, source)
    found = report(tmp_path)
    usage = os.statvfs(tmp_path)
    assert (found.type, found.source, found.total_bytes) == (kind, source, usage.f_blocks * usage.f_frsize)
    assert Quota(found.quota_bytes, found.quota_used_bytes, found.quota_files) == expected
    assert found.striping == striping
    words = "\n".join(path.read_text() for path in asked).splitlines()
    assert any(word in ("gpfs0", "/mnt/a b;c", "--mount=/mnt/a b;c") for word in words)


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "head -c 100000 /dev/urandom", "exec sleep 60"])
def test_a_program_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], Path], script: str
) -> None:
    """One that fails, dies, prints rubbish or does not answer costs nothing but its own lines."""
    monkeypatch.setattr(filesystem_report, "TIMEOUT_SECONDS", 0.5)
    program("mmlsquota", script)
    program("mmlsfs", SAID["mmlsfs"])
    mounted_as(monkeypatch, "gpfs")
    found = report(tmp_path)
    assert (found.quota_bytes, found.quota_used_bytes, found.quota_files) == (None, None, None)
    assert found.striping == "blocks of 4194304 bytes, data replicas: 2"


@pytest.mark.parametrize("kind", ["lustre", "gpfs", "beegfs", "xfs", "tmpfs", ""])
def test_where_no_program_is_there_the_rest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Without `lfs`, `mmlsquota`, `beegfs-ctl` and `quota`, there is size and room, and no quota."""
    monkeypatch.setenv("PATH", str(tmp_path))
    mounted_as(monkeypatch, kind, "somewhere")
    found = report(tmp_path)
    assert found == FilesystemReport(kind, "somewhere", found.total_bytes, found.free_bytes)
    assert 0 < found.free_bytes <= found.total_bytes


def test_a_root_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A missing mount gives one error with its remedy."""
    with pytest.raises(StorageError, match="cannot be asked") as caught:
        report(tmp_path / "missing")
    assert "Mount the drive" in caught.value.remedy


def test_an_open_folders_mount_is_known(tmp_path: Path) -> None:
    """The kernel tells where this folder is mounted, and as what."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        mount = mount_of(descriptor)
    finally:
        os.close(descriptor)
    assert mount.type
    assert str(tmp_path).startswith(mount.point)
