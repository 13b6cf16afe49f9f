"""What happens to the link to another host: it is cut, slow, reset, or a black hole."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.faults.bench import Bench, catch, wait_until
from tests.faults.tried import long, tried
from tests.storage.ssh_servers import SshServer, make_server

pytestmark = pytest.mark.root
_ON = "two network namespaces and a pair of veth, OpenSSH"


@dataclass
class Link:
    """A link to a network namespace in which an sshd listens."""

    name: str
    net: str
    server: SshServer
    process: subprocess.Popen[bytes]

    @property
    def settings(self) -> dict[str, object]:
        """How the server is reached; silence is given up soon."""
        made = replace(
            self.server.settings, host=f"{self.net}.2", port=22, silence_seconds=1.5, connect_seconds=3.0, channels=3
        )
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(made).items()}

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", f"{self.name}n", "down")

    def mend(self) -> None:
        """Plug it in again, and undo the rest."""
        _ip("link", "set", f"{self.name}n", "up")
        with suppress(subprocess.CalledProcessError):
            _ip("-n", self.name, "route", "del", "blackhole", f"{self.net}.1/32")

    def swallow(self) -> None:
        """Nothing comes back any more, and nobody says so."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{self.net}.1/32")

    def reset(self) -> None:
        """Every connection ends at once."""
        for session in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                session.kill()

    def slow_down(self) -> None:
        """No more than 5 MB/s pass."""
        rate = ["rate", "40mbit", "burst", "64kb", "latency", "400ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", f"{self.name}n", "root", "tbf", *rate], check=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    """A link to another host, as far as the network can tell."""
    if os.geteuid():
        pytest.skip("needs root, to make network namespaces")
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian package {package})")
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    server = make_server(folder)
    server.stop()
    name, net = f"cct{os.getpid() % 100_000}", f"10.{os.getpid() // 250 % 250}.{os.getpid() % 250}"
    config = (folder / "config").read_text().replace("127.0.0.1", f"{net}.2")
    (folder / "config").write_text(config.replace(f"Port {server.port}", "Port 22"))
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"{net}.2 {key}")
    process = None
    try:
        try:
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}n", "type", "veth", "peer", "name", f"{name}f", "netns", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine lets nobody make network namespaces ({error.stderr.decode().strip()})")
        _ip("addr", "add", f"{net}.1/30", "dev", f"{name}n")
        _ip("link", "set", f"{name}n", "up")
        _ip("-n", name, "addr", "add", f"{net}.2/30", "dev", f"{name}f")
        _ip("-n", name, "link", "set", f"{name}f", "up")
        # Not `ip netns exec`: that keeps every drive mounted that other tests take out meanwhile.
        enter = ["nsenter", f"--net=/run/netns/{name}", "--"]
        command = [*enter, shutil.which("sshd", path="/usr/sbin:/sbin") or "sshd", "-D", "-e"]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen([*command, "-f", str(folder / "config")], stderr=log)
        wait_until(lambda: "Server listening" in (folder / "log").read_text())
        yield Link(name, net, server, process)
    finally:
        if process is not None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        for what in (["link", "del", f"{name}n"], ["netns", "del", name]):
            subprocess.run(["ip", *what], check=False, capture_output=True)


def _broken(bench: Bench, link: Link, size: str, break_: Callable[[], None]) -> None:
    """Two stores, one of them far; the link breaks in the middle of a copy; then it is mended."""
    bench.add_host("far", link.settings)
    bench.add_folder("raid")
    bench.start_well()
    copied = len(bench.arrive_all(size)) + 1
    catch(lambda: bench.partials("far"))
    break_()
    bench.arrive("later.tiff")
    bench.hurt()
    wait_until(lambda: bench.verified_on("raid") == copied + 1)
    link.mend()
    bench.healed()


@tried(
    "the link is cut",
    made="`ip link set … down` in the middle of a copy, and up again",
    on=_ON,
    says=("has not answered", "the connection was lost"),
)
@pytest.mark.parametrize("size", ["big", long("small")])
def test_the_link_is_cut(bench: Bench, link: Link, size: str) -> None:
    """The near store goes on alone; the far one catches up when the link is back."""
    _broken(bench, link, size, link.cut)


@tried(
    "the link is a black hole",
    made="a `blackhole` route at the far end: what is sent arrives, and nothing comes back",
    on=_ON,
    says=("has not answered", "the connection was lost"),
)
@pytest.mark.parametrize("size", ["small", long("big")])
def test_the_link_is_a_black_hole(bench: Bench, link: Link, size: str) -> None:
    """Silence is given up, said, and tried again until somebody answers."""
    _broken(bench, link, size, link.swallow)


@tried(
    "the link is reset, again and again",
    made="`kill -9` of every session of the far sshd while copies are written, five times",
    on=_ON,
)
@pytest.mark.parametrize("size", ["big", long("small")])
def test_the_link_is_reset(bench: Bench, link: Link, size: str) -> None:
    """Copies go on with what lies there, and are whole."""
    bench.add_host("far", link.settings)
    bench.start_well()
    for turn in range(5):
        bench.arrive(f"{turn}.tiff", 6_000_000 if size == "big" else 5_000)
        catch(lambda turn=turn: bench.partials("far") or bench.verified_on("far") > turn + 1)  # type: ignore[misc]
        link.reset()
        bench.assert_sound()
    bench.healed()


@tried("the link is slow", made="`tc … tbf`, 5 MB/s", on=_ON)
@pytest.mark.parametrize("size", ["small", long("big")])
def test_the_link_is_slow(bench: Bench, link: Link, size: str) -> None:
    """A slow store holds up no other for good, and nothing is given up for its slowness."""
    bench.add_host("far", link.settings)
    bench.add_folder("raid")
    bench.start_well()
    link.slow_down()
    bench.arrive_all(size)
    bench.healed()
    assert not bench.says()
