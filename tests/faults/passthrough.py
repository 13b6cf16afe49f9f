# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH101  # it passes calls on as they are
"""A file system that passes everything on to a folder, but for the faults that its rules name.

`python -m tests.faults.passthrough FOLDER MOUNTPOINT RULES` serves until it is unmounted. RULES is a JSON file with a
list of rules (`Rule`), read anew at every operation. Where a rule holds an operation up, an empty file RULES.held
says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

_HELD = ".held"


@dataclass(frozen=True)
class Rule:
    """What goes wrong: in which operation (`read`, `write`, `fsync`, `fsyncdir`, `open`, `create`, `link`), for
    paths that contain `name`, in what lies from byte `at` on.

    Either the operation fails with the error number `code`; or, at reading, the byte `flip` is another; or, with
    `hold`, the operation waits until the rule is gone.
    """

    op: str
    name: str = ""
    at: int = 0
    code: int = 0
    flip: int | None = None
    hold: bool = False


@dataclass
class Faulty:
    """A mounted pass-through: `folder` is what the facility sees, `beneath` what really is there."""

    folder: Path
    beneath: Path
    rules: Path
    process: subprocess.Popen[bytes]

    def fail(self, *rules: Rule) -> None:
        """From now on these rules hold, and no others."""
        fresh = self.rules.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(rule) for rule in rules]))
        fresh.rename(self.rules)

    def heal(self) -> None:
        """From now on nothing goes wrong."""
        self.rules.with_suffix(_HELD).unlink(missing_ok=True)
        self.fail()

    def is_holding(self) -> bool:
        """Whether an operation is being held up."""
        return self.rules.with_suffix(_HELD).exists()


@contextmanager
def passed_through(folder: Path) -> Iterator[Faulty]:
    """A pass-through, mounted in a new folder; the test skips where that cannot be."""
    require_fuse()
    beneath, mounted, rules = folder / "beneath", folder / "seen", folder / "rules.json"
    for each in (beneath, mounted):
        each.mkdir(parents=True)
    rules.write_text("[]")
    made = Faulty(mounted, beneath, rules, serve(beneath, mounted, rules))
    try:
        yield made
    finally:
        made.heal()
        subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
        made.process.terminate()
        made.process.wait()


def require_fuse() -> None:
    """Skip the test where no FUSE file system can be mounted."""
    if os.geteuid():
        pytest.skip("needs root, to mount file systems")
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    mfusepy = pytest.importorskip("mfusepy", reason="needs the Python package mfusepy")
    if mfusepy.fuse_version_major != 2:
        pytest.skip("needs libfuse.so.2 (Debian package libfuse2): the binding drops version 3's flags of a renaming")


def serve(beneath: Path, mounted: Path, rules: Path) -> subprocess.Popen[bytes]:
    """Mount a pass-through."""
    command = [sys.executable, "-m", "tests.faults.passthrough", str(beneath), str(mounted), str(rules)]
    with rules.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log)
    until = time.monotonic() + 30
    while not os.path.ismount(mounted):
        assert process.poll() is None, rules.with_suffix(".log").read_text()
        assert time.monotonic() < until, "the pass-through does not come up"
        time.sleep(0.01)
    return process


def _main(beneath: str, mounted: str, rules: str) -> None:
    import mfusepy  # only this process needs it

    class PassThrough(mfusepy.Operations):
        """The folder, with its rules."""

        use_ns = True

        def _real(self, path: str) -> str:
            return beneath + path

        def _broken(self, op: str, path: str, end: int | None = None) -> list[Rule]:
            """The rules that an operation meets whose last byte is before `end`; raises what they say."""
            while True:
                found = [Rule(**rule) for rule in json.loads(Path(rules).read_text())]
                met = [r for r in found if r.op == op and r.name in path and (end is None or r.at < end)]
                if not any(rule.hold for rule in met):
                    break
                Path(rules).with_suffix(_HELD).touch()
                time.sleep(0.005)
            return met

        def _fails(self, op: str, path: str) -> None:
            for rule in self._broken(op, path):
                if rule.code:
                    raise mfusepy.FuseOSError(rule.code)

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            status = os.lstat(self._real(path)) if fh is None else os.fstat(fh)
            names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
            times = {f"st_{t}time": getattr(status, f"st_{t}time_ns") for t in "amc"}
            return {name: getattr(status, name) for name in names} | times

        def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
            with os.scandir(self._real(path)) as entries:
                return [(entry.name, {"st_ino": entry.inode()}, 0) for entry in entries]

        def statfs(self, path: str) -> dict[str, int]:
            usage = os.statvfs(self._real(path))
            return {key: getattr(usage, key) for key in dir(usage) if key.startswith("f_") and key != "f_fsid"}

        def open(self, path: str, flags: int) -> int:
            self._fails("open", path)
            return os.open(self._real(path), flags & ~os.O_DIRECT)

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            self._fails("create", path)
            return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            end = min(offset + size, os.fstat(fh).st_size)
            data = bytearray(os.pread(fh, size, offset))
            for rule in self._broken("read", path, max(end, 1)):
                if rule.code:
                    raise mfusepy.FuseOSError(rule.code)
                if rule.flip is not None and offset <= rule.flip < end:
                    data[rule.flip - offset] ^= 1
            return bytes(data)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            for rule in self._broken("write", path, offset + len(data)):
                if rule.code and rule.at <= offset:
                    raise mfusepy.FuseOSError(rule.code)
                if rule.code:
                    return os.pwrite(fh, data[: rule.at - offset], offset)
            return os.pwrite(fh, data, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            self._fails("fsync", path)
            os.fsync(fh)
            return 0

        def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
            self._fails("fsyncdir", path)
            return 0

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            os.truncate(self._real(path) if fh is None else fh, length)
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            os.mkdir(self._real(path), mode)
            return 0

        def rmdir(self, path: str) -> int:
            os.rmdir(self._real(path))
            return 0

        def unlink(self, path: str) -> int:
            os.unlink(self._real(path))
            return 0

        def link(self, target: str, source: str) -> int:
            self._fails("link", source)
            os.link(self._real(source), self._real(target))
            return 0

        def rename(self, old: str, new: str) -> int:
            self._fails("link", old)
            os.rename(self._real(old), self._real(new))
            return 0

        def chmod(self, path: str, mode: int) -> int:
            os.chmod(self._real(path), mode)
            return 0

        def chown(self, path: str, uid: int, gid: int) -> int:
            os.chown(self._real(path), uid, gid)
            return 0

        def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
            os.utime(self._real(path), ns=times)
            return 0

    with suppress(RuntimeError):
        options = {"fsname": "passed", "attr_timeout": 0, "entry_timeout": 0, "use_ino": True, "big_writes": True}
        mfusepy.FUSE(PassThrough(), mounted, foreground=True, **options)


if __name__ == "__main__":
    _main(*sys.argv[1:])
