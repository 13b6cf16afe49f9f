"""How another host is reached: what OpenSSH's `ssh` is told, as an argv that no shell of this host ever reads."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from coldchain.errors import ConfigError

# Names go into `ssh`'s own templates (ProxyCommand's %h and %r), which a shell may read: nothing that one would act on.
_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]*")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9]*=[^\x00-\x1f\x7f]+")
_URL = re.compile(r"ssh://(?:(?P<user>[^/]*)@)?(?P<host>\[[^]/]*\]|[^/@:]*)(?::(?P<port>\d{1,5}))?(?P<path>/[^?#]*)")
# The first that both sides know is taken: AES in Galois mode, for which processors have instructions of their own.
_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com"
_ALIVE_SECONDS = 10
_ALIVE_COUNT = 3


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Where a store's host is and how to get in.

    Parameters
    ----------
    host, user, port : as `ssh` takes them; None leaves the choice to its own configuration.
    identity_file, known_hosts_file : the key to log in with, and the file that has the host's key; None as above.
    options : further options of `ssh`, each `Name=value` ("ProxyJump=gate.example.org"); they count before ours.
    python : the Python, from 3.6 on, that runs the helper there.
    channels : connections at once, at most; each serves one request after another.
    connect_seconds, silence_seconds : how long a connection may take to stand, and to say nothing while it is asked.
    stall_seconds : how long the host's disk may take for one step while the host itself answers.

    ConfigError where a name could be taken for an option, or holds what no such name does.
    """

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: Path | None = None
    known_hosts_file: Path | None = None
    options: tuple[str, ...] = ()
    python: str = "python3"
    channels: int = 4
    connect_seconds: float = 20.0
    silence_seconds: float = 30.0
    stall_seconds: float = 600.0

    def __post_init__(self) -> None:
        _require(_HOST.fullmatch(self.host), "host", self.host, "a host's name or address")
        _require(self.user is None or _USER.fullmatch(self.user), "user", self.user, "a user's name")
        _require(self.port is None or 0 < self.port < 1 << 16, "port", self.port, "a number from 1 to 65535")
        _require(self.channels > 0, "channels", self.channels, "at least 1")
        _require(self.python.isprintable() and self.python[:1] not in ("", "-"), "python", self.python, "a program")
        for option in self.options:
            _require(_OPTION.fullmatch(option), "options", option, 'words such as "ProxyJump=gate.example.org"')
        for file in (self.identity_file, self.known_hosts_file):
            named = str(file or "")
            _require(named.isprintable() and '"' not in named, "file", named, "a path without quotes")

    @property
    def words(self) -> str:
        """The host as an error names it."""
        at = f"{self.user}@{self.host}" if self.user else self.host
        return f"{at} port {self.port}" if self.port else at

    def argv(self, helper_bytes: int) -> list[str]:
        """The command that starts a helper whose source of so many bytes is the first that it is sent."""
        # No `!`, newline or single quote in it: csh and its kin would read it otherwise than sh.
        start = f'import sys; exec(compile(sys.stdin.buffer.read({helper_bytes}), "coldchain-helper", "exec"))'
        command = shlex.join(["exec", self.python, "-I", "-S", "-c", start])
        return ["ssh", "-T", "-x", "-a", *self._options(), "--", self.host, command]

    def _options(self) -> list[str]:
        # `ssh` takes the first value that it is given of each option.
        named = [
            *self.options,
            "BatchMode=yes",
            f"ConnectTimeout={max(1, round(self.connect_seconds))}",
            f"ServerAliveInterval={_ALIVE_SECONDS}",
            f"ServerAliveCountMax={_ALIVE_COUNT}",
            "StrictHostKeyChecking=yes",
            "ClearAllForwardings=yes",
            "ControlMaster=no",
            "ControlPath=none",
            "Compression=no",
            "RemoteCommand=none",
            "RequestTTY=no",
        ]
        if self.known_hosts_file is not None:
            named += [f'UserKnownHostsFile="{_escaped(self.known_hosts_file)}"', "GlobalKnownHostsFile=/dev/null"]
        if self.identity_file is not None:
            named += [f'IdentityFile="{_escaped(self.identity_file)}"', "IdentitiesOnly=yes"]
        words = [word for option in named for word in ("-o", option)]
        words += ["-c", _CIPHERS]
        if self.user is not None:
            words += ["-l", self.user]
        if self.port is not None:
            words += ["-p", str(self.port)]
        return words


@dataclass(frozen=True, slots=True)
class SshUrl:
    """The parts of `ssh://user@host:port/path`; the path is the store's root on that host."""

    host: str
    user: str | None
    port: int | None
    root: PurePosixPath


def parse_ssh_url(url: str) -> SshUrl:
    """Take such a URL apart; the path may hold `%20` and the like. ConfigError where it is none."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigError(
            f"{url!r} is no address of a store on another host",
            expected="ssh://user@host:port/path, of which user and port may be missing",
            remedy="Correct the store's url in facility.toml",
        )
    path = unquote(found["path"], errors="surrogateescape")
    _require("\0" not in path and ".." not in PurePosixPath(path).parts, "path", path, "a folder without `..`")
    port = int(found["port"]) if found["port"] else None
    return SshUrl(found["host"].strip("[]"), found["user"] or None, port, PurePosixPath(path))


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _require(holds: object, key: str, found: object, expected: str) -> None:
    if not holds:
        raise ConfigError(
            f"{found!r} cannot be the {key} of a store on another host",
            expected=expected,
            remedy="Correct the store's url or its table `ssh` in facility.toml",
        )
