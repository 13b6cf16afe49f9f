"""The site in a process of its own."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import httpx
import pytest

from coldchain import config
from coldchain.cli.site_process import SiteProcess
from coldchain.errors import CatalogError, ConfigError
from coldchain.web.server import listen
from tests.facility import make_facility
from tests.faults.bench import wait_until


def test_a_killed_site_is_begun_again_at_its_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed, the site answers again at the same address, the log says so, and left it is gone."""
    facility = make_facility(tmp_path)
    with SiteProcess(config.load(facility.config_file)) as site:
        first = site.pid
        assert first is not None
        assert first != os.getpid()
        assert httpx.get(site.url, trust_env=False).status_code == 200
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{first}/exe").exists())
        with caplog.at_level(logging.WARNING):
            wait_until(lambda: site.keep() is None and site.pid != first)
        assert "the site has ended and is begun again: its process was killed" in caplog.text
        assert httpx.get(site.url, trust_env=False, timeout=60).status_code == 200
        second, url = site.pid, site.url
    assert not Path(f"/proc/{second}").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_service_that_is_killed_takes_its_site_along(tmp_path: Path) -> None:
    """After `kill -9` of the service nothing answers at its address any more: the next one can have it."""
    facility = make_facility(tmp_path)
    process = facility.start()
    try:
        wait_until(lambda: "is running" in facility.log())
        assert httpx.get(facility.url(), trust_env=False).status_code == 200
    finally:
        process.kill()
        process.wait()
    port = int(facility.url().rpartition(":")[2])
    wait_until(lambda: _is_free(port))


def test_what_keeps_the_site_from_coming_up_is_said(tmp_path: Path) -> None:
    """What the site's process meets is raised in the service's, and the port is free again after it; so is a port that
    somebody else has."""
    facility = make_facility(tmp_path)
    settings = config.load(facility.config_file)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        fixed = settings.model_copy(update={"web": settings.web.model_copy(update={"port": port})})
        with pytest.raises(ConfigError, match=f"port {port}"), SiteProcess(fixed):
            pass
    (facility.root / "catalog.sqlite").write_bytes(b"no catalog" * 1000)
    with pytest.raises(CatalogError), SiteProcess(fixed):
        pass
    assert _is_free(port)


def _is_free(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except ConfigError:
        return False
    return True
