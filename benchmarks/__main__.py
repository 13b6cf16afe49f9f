"""Run the measurements and print them: `python -m benchmarks [all|PART] [OPTIONS OF THE PART]`.

`all` leaves out what is run by its name only.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import alignment, catalog, chain, ctf, hashing, pick, s3, ssh, storage, watch, watch_engine

PARTS: dict[str, Callable[[Sequence[str]], None]] = {
    "alignment": alignment.main,
    "catalog": catalog.main,
    "chain": lambda _: chain.main(),
    "ctf": ctf.main,
    "hashing": hashing.main,
    "pick": pick.main,
    "s3": s3.main,
    "ssh": ssh.main,
    "storage": storage.main,
    "watch": watch.main,
    "watch_engine": watch_engine.main,
}
# Ten million files fill tens of gigabytes: not among all the others.
BY_NAME_ONLY = frozenset({"catalog"})


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


def main() -> int:
    """Run the wanted parts; status 2 for an unknown one."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else "all"
    if wanted != "all" and wanted not in PARTS:
        print(f"unknown part {wanted!r}; expected all, {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}\n")
    for name, part in PARTS.items():
        if wanted == name or (wanted == "all" and name not in BY_NAME_ONLY):
            part(sys.argv[2:] if wanted == name else ())
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
