"""What a file system tells of itself beside free bytes: what it is, what this user may use of it, how it is striped.

Parallel file systems tell it by programs of their own, which are asked where they exist: `lfs` (Lustre), `mmlsquota`
and `mmlsfs` (GPFS), `beegfs-ctl` (BeeGFS), `quota` (all that have Linux quotas, and NFS). What none of them tells, and
what a program says that is not understood, is left out: nothing depends on it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from coldchain.errors import StorageError
from coldchain.storage.mounts import Mount, mount_of

TIMEOUT_SECONDS = 10.0
_KIB = 1024
_LONGEST_TEXT = 500
_LONGEST_OUTPUT = 1 << 20
_GPFS_FOLDER = "/usr/lpp/mmfs/bin"
_WITH_QUOTA = frozenset({"ext2", "ext3", "ext4", "xfs", "jfs", "f2fs", "gfs2", "ocfs2", "nfs", "nfs4"})
# A file system's name, then KiB used, soft and hard limit and grace, then the same of files; long names have a line of
# their own. `*` marks what is above its limit, `[…]` what some of Lustre's servers did not answer for.
_TABLE_ROW = re.compile(
    r"^\s*\S+\s+\[?(\d{1,19})\]?\*?\s+(\d{1,19})\s+(\d{1,19})\s+\S+"
    r"\s+\[?(\d{1,19})\]?\*?\s+(\d{1,19})\s+(\d{1,19})\s+\S+\s*$",
    re.MULTILINE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a user may use, and uses; None where there is no limit, or none is told."""

    limit_bytes: int | None = None
    used_bytes: int | None = None
    limit_files: int | None = None


@dataclass(frozen=True, slots=True)
class FilesystemReport:
    """What a store's file system tells. `quota_…` are this user's, None where there is no limit or none is told;
    `striping` is in the file system's own words, "" where it has none."""

    type: str
    source: str
    total_bytes: int
    free_bytes: int
    quota_bytes: int | None = None
    quota_used_bytes: int | None = None
    quota_files: int | None = None
    striping: str = ""


def report(root: Path) -> FilesystemReport:
    """Ask the file system of a store's root. Raises StorageError where the root cannot be opened."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            usage, mount = os.fstatvfs(descriptor), mount_of(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(
            f"the file system cannot be asked: {error.strerror}",
            remedy="Mount the drive, or correct the store's path in facility.toml",
            path=root,
        ) from error
    quota, striping = _told(root, mount)
    return FilesystemReport(
        type=mount.type,
        source=mount.source,
        total_bytes=usage.f_blocks * usage.f_frsize,
        free_bytes=usage.f_bavail * usage.f_frsize,
        quota_bytes=quota.limit_bytes,
        quota_used_bytes=quota.used_bytes,
        quota_files=quota.limit_files,
        striping=striping,
    )


def _told(root: Path, mount: Mount) -> tuple[Quota, str]:
    user = str(os.geteuid())
    match mount.type:
        case "lustre":
            quota = table_quota(_said("lfs", ["quota", "-q", "-u", user, mount.point]))
            return quota, _one_line(_said("lfs", ["getstripe", "-d", str(root)]))
        case "gpfs":
            device = mount.source.removeprefix("/dev/")
            quota = gpfs_quota(_said("mmlsquota", ["-Y", device]))
            return quota, gpfs_striping(_said("mmlsfs", [device, "-Y"]))
        case "beegfs":
            mounted = f"--mount={mount.point}"
            quota = beegfs_quota(_said("beegfs-ctl", ["--getquota", "--csv", mounted, "--uid", user]))
            return quota, beegfs_striping(_said("beegfs-ctl", ["--getentryinfo", mounted, str(root)]))
        case kind if kind in _WITH_QUOTA:
            return table_quota(_said("quota", ["-u", "-w", "-p", "-f", mount.point])), ""
    return Quota(), ""


def table_quota(text: str) -> Quota:
    """What `lfs quota` and `quota -w -p` say of one file system: the hard limits, or the soft ones where there are no
    hard ones."""
    row = _TABLE_ROW.search(text)
    if row is None:
        return Quota()
    used, soft, hard, _, soft_files, hard_files = (int(number) for number in row.groups())
    limit_kib = hard or soft
    return Quota(
        limit_bytes=limit_kib * _KIB if limit_kib else None,
        used_bytes=used * _KIB,
        limit_files=hard_files or soft_files or None,
    )


def gpfs_quota(text: str) -> Quota:
    """What `mmlsquota -Y` says: of the quotas of the user, the groups and the file sets, the one that ends first."""
    nearest, least_kib = Quota(), None
    for row in colon_rows(text, "mmlsquota"):
        used, hard, soft, files, soft_files = (
            _number(row.get(name, ""))
            for name in ("blockUsage", "blockLimit", "blockQuota", "filesLimit", "filesQuota")
        )
        limit = hard or soft
        if used is None:
            continue
        left_kib = limit - used if limit else None
        if nearest == Quota() or (left_kib is not None and (least_kib is None or left_kib < least_kib)):
            nearest = Quota(limit * _KIB if limit else None, used * _KIB, files or soft_files or None)
            least_kib = left_kib
    return nearest


def gpfs_striping(text: str) -> str:
    """What `mmlsfs DEVICE -Y` says of blocks and replicas."""
    told = {row.get("fieldName", ""): row.get("data", "") for row in colon_rows(text, "mmlsfs")}
    words = [
        f"blocks of {told['blockSize']} bytes" if told.get("blockSize") else "",
        f"data replicas: {told['defaultDataReplicas']}" if told.get("defaultDataReplicas") else "",
    ]
    return _one_line(", ".join(word for word in words if word))


def beegfs_quota(text: str) -> Quota:
    """What `beegfs-ctl --getquota --csv` says: name, number, bytes used, their limit, files, their limit."""
    for line in text.splitlines():
        fields = line.strip().split(",")
        if len(fields) == 6 and (used_bytes := _number(fields[2])) is not None:
            limit_bytes, limit_files = _number(fields[3]), _number(fields[5])
            return Quota(limit_bytes=limit_bytes or None, used_bytes=used_bytes, limit_files=limit_files or None)
    return Quota()


def beegfs_striping(text: str) -> str:
    """What `beegfs-ctl --getentryinfo` says of stripes: its lines that begin with a plus."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    told = [line.removeprefix("+ ") for line in lines if line.startswith("+ ")]
    wanted = ("Type:", "Chunksize:", "Number of storage targets:")
    return _one_line(", ".join(line for line in told if line.startswith(wanted)))


def colon_rows(text: str, command: str) -> Iterator[dict[str, str]]:
    """The rows of GPFS's machine format: fields between colons, percent-encoded, named by the last header before."""
    names: list[str] = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if fields[0] != command or len(fields) < 4:
            continue
        if fields[2] == "HEADER":
            names = fields
        else:
            yield {name: unquote(field) for name, field in zip(names, fields, strict=False) if name}


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_TEXT]


def _said(program: str, arguments: Sequence[str]) -> str:
    """What a program prints; "" where there is none, it fails, or it does not answer in time."""
    path = shutil.which(program) or shutil.which(program, path=_GPFS_FOLDER)
    if path is None:
        return ""
    try:
        process = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        return ""
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # what waits for a dead server does not even die
            process.wait(timeout=1.0)
        if process.stdout is not None:
            process.stdout.close()
        return ""
    # `quota` ends with 1 where a limit is exceeded, and tells all the same.
    return output[:_LONGEST_OUTPUT].decode("utf-8", "replace")
