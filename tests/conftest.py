"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("coldchain", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("coldchain")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files that COLDCHAIN_REAL_DATA names; the test skips, saying so, where it is not set."""
    named = os.environ.get("COLDCHAIN_REAL_DATA")
    if not named:
        pytest.skip("COLDCHAIN_REAL_DATA names no folder of real files")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"COLDCHAIN_REAL_DATA names {folder}, which is not there")
    return folder
