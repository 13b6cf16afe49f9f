"""docs/reliability.md: `python -m tests.faults.table` writes it from what the tests of faults say of themselves."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.faults.tried import TRIED, Tried

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
_MODULES = (
    "test_faults_by_killing",
    "test_faults_of_drives",
    "test_faults_of_calls",
    "test_faults_of_links",
    "test_faults_of_services",
)
_HEAD = """# Faults that were tried

Each row is a test with real components: file systems on loop devices, FUSE, network namespaces, processes that are
killed. `make test` tries every fault, `make chaos` more of its variants and moments. After every one, and at the moment
of the fault as well, the tests assert that

- **nothing is lost**: every file comes to be verified on every store that wants it;
- **nothing is called verified that is not whole**: every such copy is read again and held against what was planted;
- **nothing is deleted**: the source is as it was, and what stood in a store still stands there, under some name;
- **the reason is on the page**: what the fourth column says is in the catalog, from where the page takes it;
- **it goes on** as the fifth column says, when the fault is gone.

`python -m tests.faults.table` writes this page from the tests, and a test holds it to them. Each promise with its tests
is in [guarantees.md](guarantees.md).

| fault | how it is made | on | what the page says | then | test |
|---|---|---|---|---|---|
"""
_FOOT = """
What a drive that failed did not let us remove (hidden `.part` files) goes at the next start of the service. The service
refuses to run twice on one `facility.toml`; that two of them on the same stores do no harm is shown above all the same.
"""


def page() -> str:
    """The page as it should be."""
    for module in _MODULES:
        importlib.import_module(f"tests.faults.{module}")
    order = {f"tests.faults.{module}": number for number, module in enumerate(_MODULES)}
    rows = sorted(TRIED, key=lambda row: order[row.file.removesuffix(".py").replace("/", ".")])
    return _HEAD + "".join(_line(row) for row in rows) + _FOOT


def _line(row: Tried) -> str:
    says = " or ".join(f"“{reason}”" for reason in row.says) or "nothing: nothing is amiss"
    then = "; ".join(row.outcome)
    return f"| {row.fault} | {row.made} | {row.on} | {says} | {then} | `{row.test}` |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
