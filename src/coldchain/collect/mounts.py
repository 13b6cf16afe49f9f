"""Which file systems tell the kernel of this machine everything that happens on them."""

from __future__ import annotations

import os
import re
from pathlib import Path

_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs", "vboxsf"}
)


# Known to give a folder a new time whenever a name in it is made, removed or renamed. Others have to show it: a FAT
# volume that Windows shares and a mounted object store do not.
_KEEPS_FOLDER_TIMES = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "overlay", "nfs", "nfs4"}
    | {"lustre", "beegfs", "ceph"}
)


def filesystem_type(path: Path) -> str:
    """The type of the file system on which a path lies ("ext4", "nfs4", "fuse.sshfs"); "" where it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, found = -1, ""
    for line in lines:
        fields, _, kind = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", _unescaped, fields.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), kind.split()[0] if kind else ""
    return found


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))


def is_remote(kind: str) -> bool:
    """Whether others may change files there of which this kernel hears nothing."""
    return kind in _REMOTE or kind.startswith("fuse")


def keeps_folder_times(kind: str) -> bool:
    """Whether a folder's time stamps are known to tell of every change of its names there."""
    return kind in _KEEPS_FOLDER_TIMES
