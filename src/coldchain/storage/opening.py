"""`[[store]]` of facility.toml → a store, and what it tells of itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from coldchain.notify.secret import Secret
from coldchain.storage.filesystem_report import report
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.s3.settings import MEBIBYTE, S3Settings
from coldchain.storage.sections import S3Section, SshSection, StoreSection, window_of
from coldchain.storage.ssh.settings import SshSettings, parse_ssh_url
from coldchain.storage.ssh.store import SshStore
from coldchain.storage.store import Store
from coldchain.storage.wrappers.throttled import Limit, Throttled, Window


def make_store(section: StoreSection, identity: UUID | None = None) -> Store:
    """The store that a section describes, throttled if it says so; nothing is touched yet.

    Raises ConfigError where that cannot be.
    """
    store = _bare(section, identity)
    if section.megabyte_per_second is None and section.busy_hours is None:
        return store
    windows = []
    if section.busy_hours is not None and section.busy_megabyte_per_second is not None:
        begin, end = window_of(section.busy_hours)
        windows.append(Window(begin, end, section.busy_megabyte_per_second * 1e6))
    rate = None if section.megabyte_per_second is None else section.megabyte_per_second * 1e6
    return Throttled(store, Limit(rate, windows))


def close_store(store: Store) -> None:
    """Let go of the connections that a store may have; without it they end with the process."""
    inner = store.inner if isinstance(store, Throttled) else store
    if isinstance(inner, SshStore):
        inner.close()


def describe(section: StoreSection) -> str:
    """What a store's file system tells of itself beside its size, in one line; "" where it tells nothing."""
    if section.folder is None:
        return ""
    told = report(section.folder)
    quota = "" if told.quota_bytes is None else f"quota {told.quota_bytes:,} bytes, {told.quota_used_bytes or 0:,} used"
    return "; ".join(part for part in (f"{told.type} on {told.source}".strip(), quota, told.striping) if part)


def _bare(section: StoreSection, identity: UUID | None) -> Store:
    if section.scheme == "ssh":
        return _ssh_store(section, identity)
    if section.scheme == "s3":
        return _s3_store(section, identity)
    return PosixStore(section.name, section.folder or Path(section.url), identity=identity)


def _ssh_store(section: StoreSection, identity: UUID | None) -> Store:
    where, said = parse_ssh_url(section.url), section.ssh or SshSection()
    settings = SshSettings(
        where.host,
        where.user,
        where.port,
        identity_file=said.identity_file,
        known_hosts_file=said.known_hosts_file,
        options=said.options,
        python=said.python,
        channels=said.channels,
    )
    return SshStore(section.name, where.root, settings, identity=identity)


def _s3_store(section: StoreSection, identity: UUID | None) -> Store:
    # botocore takes a second to import, which facilities without an object store should not wait for.
    from coldchain.storage.s3.store import S3Store

    where, said = urlsplit(section.url), section.s3 or S3Section()
    key_id = _secret("access_key_id", said.access_key_id_file, said.access_key_id_variable)
    key = _secret("secret_access_key", said.secret_access_key_file, said.secret_access_key_variable)
    settings = S3Settings(
        bucket=where.netloc,
        prefix=unquote(where.path).strip("/"),
        endpoint_url=said.endpoint_url,
        region=said.region,
        storage_class=said.storage_class,
        access_key_id=None if key_id is None else partial(Secret.read, key_id),
        secret_access_key=None if key is None else partial(Secret.read, key),
        recipients=said.recipients,
        identity_file=said.identity_file,
        checksum=said.checksum,
        part_bytes=said.part_megabyte * MEBIBYTE,
        concurrency=said.concurrency,
        certificates=said.certificates,
    )
    return S3Store(section.name, settings, identity)


def _secret(key: str, file: Path | None, variable: str | None) -> Secret | None:
    return None if file is None and variable is None else Secret(key, file, variable)
