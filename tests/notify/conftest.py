"""A certificate for the servers of these tests."""

from __future__ import annotations

import shutil

import pytest

from tests.notify.notify_givens import Identity, make_identity


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A certificate for localhost that no authority has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("the certificate for localhost is made by the package openssl")
    return make_identity(tmp_path_factory.mktemp("identity"))
