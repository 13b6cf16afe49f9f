"""Who is answered, what is served, and what every answer carries."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest

from coldchain.catalog import steps
from coldchain.errors import ConfigError
from coldchain.model.results import Step
from coldchain.web.app import create_app
from coldchain.web.guard import host_name, hosts_of, is_admitted
from coldchain.web.server import BackgroundServer, listen, url_of
from tests.web.planted import Facility


@pytest.mark.parametrize(
    ("header", "is_answered"),
    [
        ("localhost", True),
        ("LOCALHOST:8017", True),
        ("127.0.0.1:1", True),
        ("[::1]:8017", True),
        ("[::1]", True),
        ("localhost.", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("127.0.0.2", False),
        ("10.0.0.5", False),
        ("", False),
        ("[", False),
        ("*", False),
    ],
)
def test_only_names_of_this_machine_are_answered(client: httpx.Client, header: str, is_answered: bool) -> None:
    """A stranger's name that resolves to 127.0.0.1 gets nothing (DNS rebinding)."""
    assert is_admitted(header, hosts_of("127.0.0.1")) is is_answered
    answer = client.get("/", headers={"Host": header})
    assert (answer.status_code == 200) is is_answered
    if not is_answered:
        assert "Northern EM" not in answer.text


def test_a_server_on_every_address_answers_to_addresses_but_not_to_strangers_names() -> None:
    """Rebinding needs a name; an address is what the reader typed."""
    hosts = hosts_of("0.0.0.0")
    assert is_admitted("10.0.0.5:8017", hosts)
    assert is_admitted("[fe80::1]:8017", hosts)
    assert is_admitted(socket.gethostname(), hosts)
    assert not is_admitted("evil.example", hosts)
    assert not is_admitted("*", hosts)
    assert hosts_of("::") == hosts
    assert is_admitted("krios.example.org:80", hosts_of("Krios.example.org"))
    assert host_name("[2001:DB8::1]:80") == "2001:db8::1"


def test_every_answer_carries_the_security_headers(facility: Facility, client: httpx.Client) -> None:
    """Pages, errors, refusals, JSON, pictures and scripts: all forbid foreign code, framing and sniffing."""
    session = facility.session()
    exposure = facility.exposure(session)
    run = facility.process(exposure)[Step.PREVIEW]
    urls = ("/", "/nowhere", "/api/changes", f"/runs/{run}/thumbnail_png", "/static/live.js", "/static/plotly.min.js")
    answers = [client.get(url) for url in urls] + [client.get("/", headers={"Host": "evil.example"})]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "script-src" not in policy
        assert "unsafe-eval" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed(facility: Facility, client: httpx.Client, method: str) -> None:
    """Every route only reads."""
    session = facility.session()
    for url in ("/", f"/sessions/{session.id}", "/api/sessions", f"/api/sessions/{session.id}", "/events"):
        answer = client.request(method, url)
        assert answer.status_code == 405
        assert "Nothing can be changed" in answer.text


def test_outputs_are_served_by_run_and_role_and_kept_by_browsers(facility: Facility, client: httpx.Client) -> None:
    """Pictures come as pictures, other outputs as downloads, all cached for good as a run's outputs never change."""
    exposure = facility.exposure(facility.session())
    runs = facility.process(exposure)
    picture = client.get(f"/runs/{runs[Step.PREVIEW]}/micrograph_png")
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert "immutable" in picture.headers["Cache-Control"]
    assert client.get(f"/runs/{runs[Step.CTF]}/profile").json()["fitted"]
    (facility.results_root / "sum.mrc").write_bytes(b"mrc")
    run = facility.run(exposure, Step.ALIGN, None, {"micrograph": "sum.mrc"})
    download = client.get(f"/runs/{run}/micrograph")
    assert download.headers["Content-Disposition"] == 'attachment; filename="align-micrograph.mrc"'
    assert client.get(f"/runs/{run}/unknown").status_code == 404


def test_a_picture_that_is_really_a_page_is_not_run(facility: Facility, client: httpx.Client) -> None:
    """An output's type is one of the few that a page needs; HTML comes as a download."""
    (facility.results_root / "x.html").write_text("<script>alert(1)</script>")
    run = facility.run(facility.exposure(facility.session()), Step.ALIGN, None, {"page": "x.html"})
    answer = client.get(f"/runs/{run}/page")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["../secret.txt", "a/../../secret.txt", "link.txt", "linked/secret.txt", "a\0b", "", ".", "runs"]
)
def test_nothing_outside_the_results_is_served(facility: Facility, client: httpx.Client, path: str) -> None:
    """Neither .., nor an absolute path, nor a symlink that a step registered leads out of the results folder."""
    outside = facility.results_root.parent
    (outside / "secret.txt").write_text("secret")
    (facility.results_root / "runs").mkdir()
    (facility.results_root / "link.txt").symlink_to(outside / "secret.txt")
    (facility.results_root / "linked").symlink_to(outside)
    exposure = facility.exposure(facility.session())
    outputs = {"escape": path, "absolute": str(outside / "secret.txt")}
    run = facility.run(exposure, Step.PREVIEW, None, outputs)
    for role in outputs:
        answer = client.get(f"/runs/{run}/{role}")
        assert answer.status_code == 404
        assert "secret" not in answer.text


@pytest.mark.parametrize("url", ["..%2f..%2fcatalog.sqlite", "%2e%2e/catalog.sqlite", "micrograph_png/../../x", "%00"])
def test_a_role_is_not_a_path(facility: Facility, client: httpx.Client, url: str) -> None:
    """Traversal in the address finds nothing."""
    runs = facility.process(facility.exposure(facility.session()))
    assert client.get(f"/runs/{runs[Step.PREVIEW]}/{url}").status_code == 404


def test_outputs_of_a_run_that_goes_on_are_not_kept(facility: Facility, client: httpx.Client) -> None:
    """Only a done run's outputs are final."""
    exposure = facility.exposure(facility.session())
    run = steps.begin(facility.catalog, exposure.id, Step.PREVIEW, "k", {})
    assert client.get(f"/runs/{run.id}/micrograph_png").status_code == 404


def test_a_port_in_use_is_a_stated_error(facility: Facility) -> None:
    """The error names host and port and says what to do; a port that cannot be is another."""
    app = create_app(facility.catalog, results_root=facility.results_root, facility_name="N")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1, port {port}.*choose another"):
            BackgroundServer(app, port=port).start()
    with pytest.raises(ConfigError, match="port 70000"):
        listen("127.0.0.1", 70000)
    with pytest.raises(ConfigError, match="cannot listen"):
        listen("host.invalid", 0)


def test_the_server_starts_on_localhost_stops_and_starts_again(facility: Facility) -> None:
    """Start gives a URL that answers at once; after stop the port is free; stopping twice is harmless."""
    app = create_app(facility.catalog, results_root=facility.results_root, facility_name="N")
    server = BackgroundServer(app)
    url = server.start()
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(url, trust_env=False).status_code == 200
    server.stop()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    port = int(url.rpartition(":")[2])
    with BackgroundServer(app, port=port) as again:
        assert again == url
        assert httpx.get(again, trust_env=False).status_code == 200


def test_urls_can_be_typed_into_a_browser() -> None:
    """An address that means "everywhere" is shown as this machine's, IPv6 in brackets."""
    with listen("0.0.0.0", 0) as bound:
        assert url_of(bound, "0.0.0.0") == f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert url_of(bound, "::1").startswith("http://[::1]:")


def test_no_template_runs_or_styles_inline() -> None:
    """The policy forbids inline scripts; no template may need one."""
    folder = Path(create_app.__code__.co_filename).parent / "templates"
    for template in folder.glob("*.html"):
        text = template.read_text()
        assert "<script>" not in text
        assert "style=" not in text
        assert not re.search(r"\son\w+=", text)
        assert "|safe" not in text
