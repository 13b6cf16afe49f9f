"""The pages that tell what was tried and what holds are those of the tests that are there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults import table

TESTS = table.ROOT / "tests"
GUARANTEES = table.ROOT / "docs" / "guarantees.md"
# As they are written here: parsing all tests takes two seconds.
_TESTS = re.compile(r"^(?:(?:    )?def (?=test_)|(?=Test))(\w+)(?=\(| =)", re.MULTILINE)


@cache
def functions() -> dict[str, set[str]]:
    """The tests of each file, by its path from the repository's root; a machine of hypothesis by its `Test…` name."""
    return {
        str(path.relative_to(table.ROOT)): set(_TESTS.findall(path.read_text(encoding="utf-8")))
        for path in TESTS.rglob("test_*.py")
    }


def test_the_page_of_faults_is_that_of_the_tests() -> None:
    """docs/reliability.md is what `python -m tests.faults.table` writes."""
    assert table.PAGE.read_text() == table.page()


def test_every_test_of_a_fault_is_on_the_page() -> None:
    """No fault is tried without being told."""
    told = set(re.findall(r"`(test_\w+)`", table.page()))
    there = {name for file, names in functions().items() if "/test_faults_" in file for name in names}
    assert there - told == {"test_a_power_cut_takes_what_was_not_made_durable"}
    assert told <= there


def guarantees() -> list[tuple[str, list[str]]]:
    """The rows of docs/guarantees.md: the promise, and its tests as file::name."""
    rows = []
    for line in GUARANTEES.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 2 and set(cells[0]) != {"-"} and cells[0] != "promise":
            rows.append((cells[0], re.findall(r"`([^`]+)`", cells[1])))
    return rows


def test_every_promise_names_tests_that_are_there() -> None:
    """docs/guarantees.md names, for every promise, tests by file and name, and each is there."""
    there = functions()
    rows = guarantees()
    assert rows
    for promise, tests in rows:
        assert tests, f"no test holds: {promise}"
        for test in tests:
            file, _, name = test.partition("::")
            path = f"tests/{file}"
            assert name in there.get(path, ()), f"{promise}: there is no {test}"


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
@pytest.mark.parametrize("name", ["guarantees.md", "reliability.md"])
def test_the_pages_are_found(page: str, name: str) -> None:
    """A reader comes to both pages."""
    assert re.search(rf"\]\((docs/)?{name}\)", Path(table.ROOT, page).read_text())
