from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import (
    ConfigError,
    SourceChangedError,
    StorageError,
    StoreFullError,
    VerificationError,
)
from coldchain.model.files import KeptAside, VerificationLevel
from coldchain.notify.secret import Secret
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.s3 import bucket as s3_bucket
from coldchain.storage.s3.bucket import Stood
from coldchain.storage.s3.incoming import S3Incoming
from coldchain.storage.s3.notes import metadata_of, note_of, path_of, record_of
from coldchain.storage.s3.settings import Checksum, S3Settings
from coldchain.storage.s3.store import S3Store
from coldchain.storage.s3.upload import part_bytes_for
from coldchain.storage.store import FileFacts, Store
from tests.storage.s3_servers import (
    KEY_ID,
    PART_BYTES,
    SECRET,
    Place,
    Server,
    answering,
    wire_to,
    without_md5s,
)

NAME = "krios/session/Data/movie.tiff"
MODIFIED_NS = 1_600_000_000_123_456_789
MARK = b"a place that is found again on the wire"
RING = Ring(buffer_bytes=1 << 20, count=4)


@cache
def content_of(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size_bytes)


def digest_of(content: bytes) -> str:
    """Their SHA-256."""
    return _digest_of(bytes(content))


@cache
def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def facts_of(content: bytes) -> FileFacts:
    """What a source of this content is."""
    return FileFacts(len(content), MODIFIED_NS, 0o100640)


def write(incoming: S3Incoming, content: bytes) -> None:
    """Write it in pieces."""
    for at in range(0, len(content), 1 << 20):
        incoming.write(memoryview(content)[at : at + (1 << 20)])


def sent(store: S3Store, content: bytes, name: str = NAME) -> tuple[ReadBack, S3Incoming]:
    """What a copy came to, and the copy."""
    with store.receive(name, facts_of(content)) as incoming:
        write(incoming, content)
        incoming.seal()
        found = incoming.prove(digest_of(content), RING)
        incoming.publish(digest_of(content), RING)
    return found, incoming


def got(store: S3Store, name: str = NAME) -> bytes:
    """The plain content of a stored file."""
    buffer = bytearray(1 << 20)
    content = bytearray()
    with store.reading(name) as reading:
        while length := reading.fill(memoryview(buffer)):
            content += buffer[:length]
    return bytes(content)


def names_in(store: S3Store) -> set[str]:
    """All that it lists."""
    return {found.stored_as for found in store.walk()}


def keys_in(place: Place) -> set[str]:
    """All keys of the bucket."""
    return {key for key, _ in place.raw().listing("")}


def unfinished(place: Place) -> int:
    """How many uploads are unfinished."""
    return sum(1 for _ in place.raw().uploads("facility/"))


@contextmanager
def raising(kind: type[StorageError], *words: str) -> Iterator[pytest.ExceptionInfo[StorageError]]:
    """It fails so, in these words, and no secret is among them."""
    with pytest.raises(kind) as caught:
        yield caught
    for word in words:
        assert word in str(caught.value)
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_a_copy_is_whole_and_keeps_its_time_and_mode(place: Place, size: int) -> None:
    """A file of any size comes back whole, proved by the server, with its time and mode."""
    store: S3Store = place.store()
    content = content_of(size)
    found, incoming = sent(store, content)
    assert found == ReadBack(digest_of(content), size, VerificationLevel.SERVER)
    assert (incoming.stored_as, incoming.skip_bytes, incoming.kept) == (NAME, 0, None)
    assert got(store) == content
    with store.reading(NAME) as reading:
        assert reading.facts == FileFacts(size, MODIFIED_NS, 0o640)
    assert store.size_of(NAME) == size
    assert store.read_back(NAME, RING) == found
    assert store.confirm(NAME, digest_of(content), size, RING) == found
    assert names_in(store) == {NAME}
    assert unfinished(place) == 0


@pytest.mark.parametrize("size", [0, 1000])
def test_what_the_answers_prove_is_known_before_the_first_file(place: Place, size: int) -> None:
    """The first small file of a process has the level of all others, and nothing stays of asking for it."""
    store = place.store()
    content = content_of(size)
    assert sent(store, content)[0].level is VerificationLevel.SERVER
    assert got(store) == content
    assert keys_in(place) == {f"facility/{NAME}"}
    assert not list(place.raw().uploads(""))


@pytest.mark.parametrize("size", [1000, 2 * PART_BYTES])
def test_nothing_is_there_before_it_is_published(place: Place, size: int) -> None:
    """A copy that is left before it was published leaves no object, whatever was sent of it."""
    store = place.store()
    content = content_of(size)
    with store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content)
        incoming.seal()
        incoming.prove(digest_of(content), RING)
    assert store.size_of(NAME) is None
    assert names_in(store) == set()


def test_a_killed_upload_is_gone_on_with(place: Place, tmp_path: Path) -> None:
    """A process is killed in the middle of an upload; the next one sends only what the server has not got."""
    content = content_of(3 * PART_BYTES + 1000)
    (tmp_path / "content").write_bytes(content)
    script = textwrap.dedent(f"""
        import os, signal, sys, time
        from pathlib import Path
        from tests.storage.s3_servers import Place, Server
        from tests.storage.test_s3 import NAME, facts_of, write
        content = Path({str(tmp_path / "content")!r}).read_bytes()
        place = Place(Server("", {place.server.port}, [], None), {place.bucket!r})
        store = place.store(concurrency=1)
        with store.receive(NAME, facts_of(content)) as incoming:
            write(incoming, content[:{2 * PART_BYTES + 7}])
            while any(not one.done() for one in incoming._sending._sent):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert unfinished(place) == 1
    store = place.store()
    found, incoming = sent(store, content)
    assert incoming.found_bytes == 2 * PART_BYTES
    assert found.level is VerificationLevel.SERVER
    assert got(store) == content
    assert unfinished(place) == 0
    assert store.confirm(NAME, digest_of(content), len(content), RING).level is VerificationLevel.SERVER


def test_what_changed_meanwhile_is_sent_again(on_moto: Place) -> None:
    """An upload that is gone on with is compared by content: a part that is another now is sent again."""
    store = on_moto.store()
    old = content_of(2 * PART_BYTES + 5)
    with pytest.raises(KeyboardInterrupt), store.receive(NAME, facts_of(old)) as incoming:
        write(incoming, old)
        raise KeyboardInterrupt
    assert unfinished(on_moto) == 1
    new = old[:PART_BYTES] + content_of(PART_BYTES + 5, seed=2)
    _, incoming = sent(store, new)
    assert incoming.found_bytes == PART_BYTES
    assert got(store) == new


def test_an_upload_of_another_version_is_given_up(place: Place) -> None:
    """An unfinished upload of a file that has another time by now is aborted, and a new one begun."""
    store = place.store()
    content = content_of(2 * PART_BYTES)
    with pytest.raises(KeyboardInterrupt), store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content)
        raise KeyboardInterrupt
    later = replace(facts_of(content), modified_ns=MODIFIED_NS + 1)
    with store.receive(NAME, later) as incoming:
        assert unfinished(place) == 1
        write(incoming, content)
        incoming.seal()
        assert incoming.found_bytes == 0
        incoming.publish(digest_of(content), RING)
    with store.reading(NAME) as reading:
        assert reading.facts.modified_ns == MODIFIED_NS + 1
    assert unfinished(place) == 0


def test_a_source_that_changed_leaves_no_upload(place: Place) -> None:
    """Where the source changed while it was sent, what the server got is dropped at once."""
    store = place.store()
    content = content_of(2 * PART_BYTES)
    with pytest.raises(SourceChangedError), store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content)
        raise SourceChangedError("changed")
    assert unfinished(place) == 0


def test_old_uploads_are_aborted_and_new_ones_kept(on_rclone: Place) -> None:
    """Only uploads that were begun longer ago than stated are aborted, and never one that is in hand."""
    content = content_of(2 * PART_BYTES)
    store, impatient = on_rclone.store(), on_rclone.store(abandoned_days=0.0)
    with pytest.raises(KeyboardInterrupt), store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content)
        raise KeyboardInterrupt
    assert store.remove_partials() == 0
    with impatient.receive("in/hand", facts_of(content)) as incoming:
        write(incoming, content)
        assert impatient.remove_partials() == 1
        assert unfinished(on_rclone) == 1
        incoming.seal()
        incoming.publish(digest_of(content), RING)
    assert unfinished(on_rclone) == 0


@pytest.mark.parametrize("size", [1000, 2 * PART_BYTES])
def test_a_byte_that_flips_on_the_way_is_found(place: Place, size: int) -> None:
    """One byte of a copy is changed on the wire: it fails, no object is there, and the next try is whole."""
    content = bytearray(content_of(size))
    content[200 : 200 + len(MARK)] = MARK
    with wire_to(place.server.port) as wire:
        store = place.store(port=wire.port)
        wire.outward = lambda data: data.replace(MARK, MARK.swapcase())
        with raising(StorageError):
            sent(store, bytes(content))
        assert place.store().size_of(NAME) is None
        wire.outward = lambda data: data
        assert sent(store, bytes(content))[0].level is VerificationLevel.SERVER
        assert got(store) == content


@pytest.mark.parametrize("size", [1000, 2 * PART_BYTES])
def test_a_server_whose_answers_prove_nothing_is_read_in_full(place: Place, size: int) -> None:
    """Where the server's ETags are no MD5s, the object is read in full, and the level says so."""
    content = content_of(size)
    with wire_to(place.server.port) as wire:
        without_md5s(wire)
        store = place.store(port=wire.port)
        for name in ("first", NAME):
            assert sent(store, content, name)[0].level is VerificationLevel.CACHE
        assert got(store) == content
        assert store.read_back(NAME, RING) == ReadBack(digest_of(content), size, VerificationLevel.CACHE)
        # What comes back is changed: it was never called good.
        answer = wire.homeward
        wire.homeward = lambda data: answer(data).replace(content[100:120], b"x" * 20)
        with raising(VerificationError), store.receive("other", facts_of(content)) as incoming:
            write(incoming, content)
            incoming.seal()
            incoming.publish(digest_of(content), RING)
        wire.homeward = answer
        assert store.size_of("other") is None


def test_what_is_to_be_sent_is_compared_too(place: Place) -> None:
    """A small copy whose bytes are not those that were hashed is refused."""
    store = place.store()
    with raising(VerificationError), store.receive(NAME, facts_of(b"abc")) as incoming:
        write(incoming, b"abc")
        incoming.seal()
        incoming.prove(digest_of(b"abd"), RING)


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1])
@pytest.mark.parametrize("at", [0, 500, -1])
def test_a_byte_that_flips_on_the_server_is_found(on_rclone: Place, size: int, at: int) -> None:
    """A byte of a stored object changes, first, middle or last: reading it back shows it."""
    store = on_rclone.store()
    content = content_of(size)
    sent(store, content)
    changed = bytearray(content)
    changed[at] ^= 1
    on_rclone.file_of(NAME).write_bytes(changed)
    assert store.read_back(NAME, RING).sha256 == digest_of(changed)


def test_a_copy_that_is_not_what_was_proved_is_not_confirmed(place: Place) -> None:
    """Confirming names a copy that is gone, has another size, or is another object than the one that was proved."""
    store = place.store()
    content = content_of(2 * PART_BYTES)
    sent(store, content)
    with raising(VerificationError, "SHA-256"):
        store.confirm(NAME, digest_of(b"x"), len(content), RING)
    with raising(VerificationError, "bytes"):
        store.confirm(NAME, digest_of(content), len(content) + 1, RING)
    place.raw().put("facility/" + NAME, content_of(len(content), seed=2), {}, {})
    with raising(VerificationError, digest_of(content)):
        store.confirm(NAME, digest_of(content), len(content), RING)
    store.remove(NAME)
    with raising(VerificationError, "no such object"):
        store.confirm(NAME, digest_of(content), len(content), RING)


def test_a_server_that_forgets_is_read_in_full(own_rclone: Place) -> None:
    """A server that has lost the metadata of its objects is asked for their content; its own checksum still counts."""
    store = own_rclone.store()
    small, large = content_of(1000), content_of(2 * PART_BYTES)
    sent(store, small, "small")
    sent(store, large, "large")
    own_rclone.server.stop()
    own_rclone.server.start()
    for name, content in (("small", small), ("large", large)):
        found = store.confirm(name, digest_of(content), len(content), RING)
        assert found == ReadBack(digest_of(content), len(content), VerificationLevel.SERVER)


def test_a_server_that_goes_away_is_the_stores_fault(own_rclone: Place) -> None:
    """The server dies in the middle of an upload: the copy fails, the whole store is at fault, and it works again when
    the server is back."""
    store = own_rclone.store(attempts=2)
    content = content_of(3 * PART_BYTES)
    with raising(StorageError, "cloud", "127.0.0.1") as caught, store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content[: 2 * PART_BYTES])
        own_rclone.server.stop()
        write(incoming, content[2 * PART_BYTES :])
        incoming.seal()
    assert store.is_at_fault(caught.value)
    with raising(StorageError):
        store.size_of(NAME)
    own_rclone.server.start()
    assert sent(store, content)[0].level is VerificationLevel.SERVER
    assert got(store) == content


def test_a_connection_that_is_cut_while_reading_is_stated(on_rclone: Place) -> None:
    """Half of an object comes, then nothing: that is an error, and never a short file."""
    content = content_of(2 * PART_BYTES)
    sent(on_rclone.store(), content)
    with wire_to(on_rclone.server.port) as wire:
        store = on_rclone.store(port=wire.port)
        seen = 0

        def cut(data: bytes) -> bytes:
            nonlocal seen
            seen += len(data)
            if seen > PART_BYTES:
                raise OSError
            return data

        wire.homeward = cut
        with raising(StorageError, "broke") as caught:
            store.read_back(NAME, RING)
        assert store.is_at_fault(caught.value)


def test_a_wrong_secret_is_the_stores_fault_and_never_shown(on_rclone: Place) -> None:
    """With a wrong secret nothing works, the remedy names the access key, and no message holds it."""
    wrong = "anotherSecretThatNoMessageShows"
    store = on_rclone.store(secret_access_key=wrong)
    for call in (store.mark, lambda: store.size_of(NAME), lambda: sent(store, b"abc"), store.remove_partials):
        with raising(StorageError, "access key") as caught:
            call()
        assert wrong not in str(caught.value)
        assert store.is_at_fault(caught.value)
    assert SECRET not in repr(on_rclone.settings())
    assert wrong not in repr(on_rclone.settings(secret_access_key=wrong))


def test_a_secret_that_is_changed_counts_at_once(on_rclone: Place, tmp_path: Path) -> None:
    """The key is read where it is kept: when it is missing that is said, and once it is right the store works."""
    kept = Secret("secret_access_key", file=tmp_path / "secret")
    store = on_rclone.store(secret_access_key=kept.read)
    with raising(StorageError, "empty or not there") as caught:
        store.mark()
    assert store.is_at_fault(caught.value)
    (tmp_path / "secret").write_text("itIsAnother\n")
    with raising(StorageError, "SignatureDoesNotMatch"):
        store.mark()
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert store.mark() is None


def test_a_missing_bucket_is_the_stores_fault(place: Place) -> None:
    """Where the bucket is missing, that is said, and nothing is taken to be merely absent."""
    store = S3Store("cloud", replace(place.settings(), bucket="bucket-that-is-not"))
    for call in (store.mark, lambda: store.size_of(NAME), lambda: sent(store, b"abc"), lambda: list(store.walk())):
        with raising(StorageError, "NoSuchBucket", "facility.toml") as caught:
            call()
        assert store.is_at_fault(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "kind", "at_fault"),
    [
        ("503 Slow Down", "SlowDown", StorageError, True),
        ("503 Service Unavailable", "ServiceUnavailable", StorageError, True),
        ("403 Forbidden", "RequestTimeTooSkewed", StorageError, True),
        ("403 Forbidden", "QuotaExceeded", StoreFullError, True),
        ("507 Insufficient Storage", "XMinioStorageFull", StoreFullError, True),
        ("403 Forbidden", "AccessDenied", StorageError, True),
        ("400 Bad Request", "<script>", StorageError, True),
    ],
)
def test_what_a_server_answers_is_stated(
    on_moto: Place, status: str, code: str, kind: type[StorageError], at_fault: bool
) -> None:
    """Each answer becomes one sentence with a remedy, and whose fault it is; the server's own words are not shown."""
    body = f"<Error><Code>{code.replace('<', '&lt;')}</Code><Message>{SECRET} its own words</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    with answering(head + body) as port:
        store = on_moto.store(port=port)
        with pytest.raises(kind) as caught:
            sent(store, b"abc")
        assert type(caught.value) is kind
        assert "its own words" not in str(caught.value)
        assert "script" not in str(caught.value)
        assert caught.value.remedy
        assert store.is_at_fault(caught.value) is at_fault


def test_a_server_that_does_not_answer_is_waited_for_only_so_long(on_moto: Place) -> None:
    """A black hole is left after the stated time."""
    with answering(b"") as port:
        store = on_moto.store(port=port, answer_timeout_seconds=0.3)
        with raising(StorageError, "in time") as caught:
            store.mark()
        assert store.is_at_fault(caught.value)


def test_one_missing_object_is_not_the_stores_fault(place: Place) -> None:
    """What is not there is said of that name alone."""
    store = place.store()
    with raising(StorageError, "NoSuchKey") as caught, store.reading("no/such"):
        pass
    assert not store.is_at_fault(caught.value)


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out", "a//b", "./a", "a/.", "a/", "", "a\0b", "\udc80"])
def test_no_name_leads_out_of_the_store(on_moto: Place, name: str) -> None:
    """Names that would lead out of the prefix, or be another key than they say, are refused everywhere."""
    store = on_moto.store()
    calls = [
        lambda: store.size_of(name),
        lambda: store.read_back(name, RING),
        lambda: store.confirm(name, "0" * 64, 1, RING),
        lambda: store.remove(name),
        lambda: store.move(name, "a"),
        lambda: store.move("a", name),
        lambda: store.reading(name).__enter__(),
    ]
    if name != "\udc80":  # that one has a stored name
        calls.append(lambda: sent(store, b"abc", name))
    for call in calls:
        with pytest.raises(StorageError):
            call()
    assert not keys_in(on_moto)


@pytest.mark.parametrize("own", [".coldchain-store", ".coldchain-proofs/x", ".coldchain-trash/x"])
def test_what_is_the_stores_own_is_no_copys_name(on_moto: Place, own: str) -> None:
    """No copy takes, moves or removes what the store keeps for itself; only its trash is moved to."""
    store = on_moto.store()
    with raising(StorageError):
        sent(store, b"abc", own)
    if "trash" not in own:
        with raising(StorageError):
            store.remove(own)


@pytest.mark.parametrize(
    "name", ["krios/s/ä ö+%&?=#.tif", "krios/s/a\\b:c*.tif", "krios/s/\udcff\udc80.mrc", "k/s/\n.x"]
)
def test_any_name_is_kept(place: Place, name: str) -> None:
    """Names of any bytes are stored so that they come back, and the object says of what it is a copy."""
    store = place.store()
    content = content_of(100)
    _, incoming = sent(store, content, name)
    stored_as = store.stored_name(name)
    assert incoming.stored_as == stored_as
    assert got(store, stored_as) == content
    assert stored_as in names_in(store)
    stood = place.raw().head(f"facility/{stored_as}")
    assert stood is not None
    assert path_of(stood.metadata) == name


def test_a_hundred_small_files_are_all_there(place: Place) -> None:
    """Many small files are stored one by one, listed over several pages, and each is what it was."""
    store = place.store()
    contents = {f"krios/session/{n:03}.xml": content_of(200 + n, seed=n) for n in range(100)}
    for name, content in contents.items():
        sent(store, content, name)
    assert {found.stored_as: found.size_bytes for found in store.walk()} == {n: len(c) for n, c in contents.items()}
    for name in list(contents)[::20]:
        assert store.read_back(name, RING).sha256 == digest_of(contents[name])


def test_other_content_is_kept_aside(place: Place) -> None:
    """Other content of a copy's name is copied aside before it is replaced, and said to be; the same content is not."""
    store = place.store()
    old, new = content_of(2 * PART_BYTES, seed=3), content_of(1000, seed=4)
    sent(store, old)
    _, incoming = sent(store, new)
    aside = f"{NAME}.replaced-{digest_of(old)[:8]}"
    assert incoming.kept == KeptAside(aside, digest_of(old))
    assert (got(store), got(store, aside)) == (new, old)
    with store.reading(aside) as reading:
        assert reading.facts == FileFacts(len(old), MODIFIED_NS, 0o640)
    assert store.confirm(aside, digest_of(old), len(old), RING).level is VerificationLevel.SERVER
    assert sent(store, new)[1].kept is None
    assert names_in(store) == {NAME, aside}


def test_what_has_the_name_of_what_is_kept_aside_stays(on_moto: Place) -> None:
    """Where something else has the name that other content would be kept aside under, another one is taken."""
    store = on_moto.store()
    old, new = content_of(1000, seed=3), content_of(1000, seed=4)
    sent(store, old)
    aside = f"{NAME}.replaced-{digest_of(old)[:8]}"
    sent(store, b"something else", aside)
    assert sent(store, new)[1].kept == KeptAside(f"{aside}-2", digest_of(old))
    assert got(store, aside) == b"something else"


def test_moving_copies_and_removes(place: Place) -> None:
    """A move leaves one object, whole and with its facts, under the new name; the trash is never listed."""
    store = place.store()
    content = content_of(2 * PART_BYTES)
    sent(store, content)
    sent(store, b"other", "other")
    store.move(NAME, f".coldchain-trash/{NAME}")
    assert store.size_of(NAME) is None
    assert names_in(store) == {"other"}
    assert got(store, f".coldchain-trash/{NAME}") == content
    with raising(StorageError, "already"):
        store.move("other", f".coldchain-trash/{NAME}")
    store.move(f".coldchain-trash/{NAME}", NAME)
    with store.reading(NAME) as reading:
        assert reading.facts == FileFacts(len(content), MODIFIED_NS, 0o640)
    assert store.confirm(NAME, digest_of(content), len(content), RING).level is VerificationLevel.SERVER
    with raising(StorageError, "no such object"):
        store.move("not/there", "anywhere")
    assert store.remove(NAME)
    assert not store.remove(NAME)
    assert store.remove("other")
    assert keys_in(place) == set()


def test_what_is_large_is_copied_in_parts(on_moto: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one request to copy is copied in parts, on the server."""
    store = on_moto.store()
    content = content_of(2 * PART_BYTES + 100)
    sent(store, content)
    monkeypatch.setattr(s3_bucket, "COPY_LIMIT_BYTES", PART_BYTES)
    monkeypatch.setattr(s3_bucket, "_COPIED_PART_BYTES", PART_BYTES)
    store.move(NAME, "moved")
    assert got(store, "moved") == content
    assert store.confirm("moved", digest_of(content), len(content), RING).level is VerificationLevel.SERVER


def test_a_server_that_copies_nothing_loses_nothing(on_rclone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says that it copied and did not: the move fails, and the object stays."""
    store = on_rclone.store()
    content = content_of(2 * PART_BYTES)
    sent(store, content)
    monkeypatch.setattr(s3_bucket, "COPY_LIMIT_BYTES", PART_BYTES)
    monkeypatch.setattr(s3_bucket, "_COPIED_PART_BYTES", PART_BYTES)
    with pytest.raises(StorageError):  # rclone's server takes no part from another object, and does not say so
        store.move(NAME, "moved")
    assert got(store) == content
    assert store.size_of("moved") is None


def test_a_store_is_known_by_its_identity(place: Place) -> None:
    """A store bears its identity, nobody gives it another, and another store in its place is never written to."""
    store = place.store()
    identity = uuid4()
    assert store.mark() is None
    store.set_mark(identity)
    store.set_mark(identity)
    assert store.mark() == identity
    with raising(StorageError, str(identity)):
        store.set_mark(uuid4())
    store.identity = identity
    sent(store, b"abc")
    other = S3Store("cloud", replace(place.settings(), prefix="empty"), identity)
    for call in (lambda: sent(other, b"abc"), lambda: other.remove(NAME), lambda: list(other.walk())):
        with raising(StorageError, "identity"):
            call()
    assert not any(key.startswith("empty/") for key in keys_in(place))
    assert names_in(store) == {NAME}


def test_an_identity_that_is_none_is_refused(place: Place) -> None:
    """Something else under the identity's name is an error, not a store without identity."""
    place.raw().put_own("facility/.coldchain-store", b"x" * 100_000)
    with raising(StorageError):
        place.store().mark()


def test_with_sha256_the_servers_own_sha256_is_compared(on_moto: Place) -> None:
    """Where that is set, SHA-256 goes with every part, and a flipped byte is found by it."""
    content = content_of(2 * PART_BYTES + 3)
    with wire_to(on_moto.server.port) as wire:
        store = on_moto.store(port=wire.port, checksum=Checksum.SHA256)
        assert sent(store, content)[0].level is VerificationLevel.SERVER
        assert got(store) == content
        assert store.read_back(NAME, RING).level is VerificationLevel.SERVER
        assert store.confirm(NAME, digest_of(content), len(content), RING).level is VerificationLevel.SERVER
        wire.outward = lambda data: data.replace(content[1000:1020], b"x" * 20)
        with raising(VerificationError):
            sent(store, content, "another")
        assert names_in(on_moto.store()) == {NAME}


def _keys(folder: Path, name: str = "identity.txt") -> tuple[Path, str]:
    identity = pyrage.x25519.Identity.generate()
    path = folder / name
    path.write_text(f"# the facility's key\n{identity}\n")
    return path, str(identity.to_public())


@pytest.mark.parametrize("size", [0, 1, 70_000, 2 * PART_BYTES + 17])
def test_encrypted_content_comes_back_and_is_not_readable_there(on_rclone: Place, tmp_path: Path, size: int) -> None:
    """What is encrypted comes back whole with its facts and its plain size; what is stored shows nothing of it."""
    identity, recipient = _keys(tmp_path)
    store = on_rclone.store(recipients=(recipient,), identity_file=identity)
    content = (MARK * (size // len(MARK) + 1))[:size]
    found, _ = sent(store, content)
    assert found == ReadBack(digest_of(content), size, VerificationLevel.SERVER)
    assert got(store) == content
    assert store.size_of(NAME) == size
    assert store.read_back(NAME, RING) == found
    assert store.confirm(NAME, digest_of(content), size, RING) == found
    with store.reading(NAME) as reading:
        assert reading.facts == FileFacts(size, MODIFIED_NS, 0o640)
    stored = on_rclone.file_of(NAME).read_bytes()
    assert MARK[:20] not in stored
    assert stored.startswith(b"age-encryption.org/v1\n")
    plain = pyrage.decrypt(stored, [pyrage.x25519.Identity.from_str(identity.read_text().split()[-1])])
    assert plain == content


def test_the_key_may_stay_where_it_is_not_needed(on_moto: Place, tmp_path: Path) -> None:
    """With a recipient alone a store writes and confirms; reading says what is missing, and the key is never shown."""
    identity, recipient = _keys(tmp_path)
    store = on_moto.store(recipients=(recipient,))
    content = content_of(1000)
    assert sent(store, content)[0].level is VerificationLevel.SERVER
    assert store.confirm(NAME, digest_of(content), 1000, RING).level is VerificationLevel.SERVER
    with raising(StorageError, "identity") as caught:
        store.read_back(NAME, RING)
    assert not store.is_at_fault(caught.value)
    other, _ = _keys(tmp_path, "other.txt")
    with raising(StorageError, "other identities"):
        on_moto.store(identity_file=other).read_back(NAME, RING)
    broken = tmp_path / "broken.txt"
    broken.write_text(identity.read_text().replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1X"))
    for path in (broken, tmp_path / "none.txt"):
        with raising(StorageError, "identity file") as caught:
            on_moto.store(identity_file=path).read_back(NAME, RING)
        assert "AGE-SECRET-KEY-1X" not in str(caught.value)
        with raising(StorageError, "identity file"):
            sent(on_moto.store(identity_file=path), content_of(2 * PART_BYTES), "other")
        assert unfinished(on_moto) == 0
    assert got(on_moto.store(identity_file=identity)) == content


@pytest.mark.parametrize("size", [1000, PART_BYTES])
@pytest.mark.parametrize("damage", ["first", "middle", "last", "cut"])
def test_damaged_encrypted_content_is_refused(on_rclone: Place, tmp_path: Path, size: int, damage: str) -> None:
    """Encrypted content that was changed or cut short anywhere is an error, never other content."""
    identity, _ = _keys(tmp_path)
    store = on_rclone.store(identity_file=identity)
    sent(store, content_of(size))
    path = on_rclone.file_of(NAME)
    stored = bytearray(path.read_bytes())
    if damage == "cut":
        del stored[-100:]
    else:
        stored[{"first": 30, "middle": len(stored) // 2 + 300, "last": -1}[damage]] ^= 1
    path.write_bytes(stored)
    with raising(StorageError):
        store.read_back(NAME, RING)


def test_an_encrypted_upload_that_was_killed_is_begun_anew(place: Place, tmp_path: Path) -> None:
    """Each try has a key of its own, so nothing of an earlier one is used, and nothing of it stays."""
    identity, _ = _keys(tmp_path)
    store = place.store(identity_file=identity)
    content = content_of(3 * PART_BYTES)
    with pytest.raises(KeyboardInterrupt), store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content[: 2 * PART_BYTES + 1])
        raise KeyboardInterrupt
    assert unfinished(place) == 0
    _, incoming = sent(store, content)
    assert incoming.found_bytes == 0
    assert got(store) == content


def test_a_server_that_goes_away_ends_an_encrypted_upload(own_rclone: Place, tmp_path: Path) -> None:
    """What stops the sending stops the encrypting, and says why."""
    identity, _ = _keys(tmp_path)
    store = own_rclone.store(identity_file=identity)
    content = content_of(4 * PART_BYTES)
    with raising(StorageError, "127.0.0.1"), store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content[:PART_BYTES])
        own_rclone.server.stop()
        write(incoming, content[PART_BYTES:])
        incoming.seal()


def test_two_copies_of_one_name_do_not_disturb_each_other(on_moto: Place) -> None:
    """Two copies of one name at once have uploads of their own, and neither ends the other's."""
    store = on_moto.store()
    content = content_of(2 * PART_BYTES)
    with store.receive(NAME, facts_of(content)) as incoming:
        write(incoming, content)
        sent(store, content)
        incoming.seal()
        incoming.prove(digest_of(content), RING)
        incoming.publish(digest_of(content), RING)
    assert got(store) == content
    assert unfinished(on_moto) == 0
    assert store.confirm(NAME, digest_of(content), len(content), RING).level is VerificationLevel.SERVER


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": ""},
        {"bucket": "a/b"},
        {"prefix": "a//b"},
        {"prefix": "../a"},
        {"prefix": "a/"},
        {"prefix": "a" * 65},
        {"secret_access_key": None},
        {"part_bytes": 1},
        {"concurrency": 0},
        {"endpoint_url": "127.0.0.1:80"},
        {"endpoint_url": f"http://{KEY_ID}:{SECRET}@127.0.0.1"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """What cannot work is said before anything is sent, without the secret."""
    given = {"bucket": "b", "access_key_id": KEY_ID, "secret_access_key": SECRET, **wrong}
    with pytest.raises(ConfigError) as caught:
        S3Settings(**given)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_a_recipient_that_is_none_is_refused() -> None:
    """A recipient that age does not know is an error when the store is made."""
    with pytest.raises(ConfigError):
        S3Store("cloud", S3Settings("b", recipients=("age1nobody",)))


@given(size=st.integers(0, 5 << 40))
def test_parts_are_no_more_than_a_server_takes(size: int) -> None:
    """No object needs more than 10,000 parts, nor parts over 5 GiB, nor larger ones than it must."""
    part = part_bytes_for(size, PART_BYTES)
    assert PART_BYTES <= part <= 5 << 30
    assert -(-size // part) <= 10_000


@given(
    path=st.binary(min_size=1, max_size=700), size=st.integers(0, 1 << 50), modified=st.integers(-(1 << 62), 1 << 62)
)
def test_metadata_comes_back(path: bytes, size: int, modified: int) -> None:
    """Facts and paths of any bytes come back from metadata, which is printable ASCII without blanks at its ends."""
    facts = FileFacts(size, modified, 0o100600)
    metadata = metadata_of(os.fsdecode(path), facts, sealed=True, sha256="0" * 64)
    for value in metadata.values():
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 2000
    note = note_of(Stood(1, "", metadata, datetime(2020, 1, 1, tzinfo=UTC), ""))
    assert note.facts == replace(facts, mode=0o600)
    assert (note.sealed, note.sha256) == (True, "0" * 64)
    assert path_of(metadata) == os.fsdecode(path)


@given(
    values=st.dictionaries(
        st.sampled_from([f"coldchain-{word}" for word in ("modified-ns", "mode", "size", "path", "sealed", "sha256")]),
        st.text(max_size=30) | st.sampled_from(["age", "-1", "9" * 40, "777", "base64:!"]),
    )
)
def test_hostile_metadata_is_only_other_facts(values: dict[str, str]) -> None:
    """Whatever a server says of an object, reading it does not fail."""
    note = note_of(Stood(10, "", values, datetime(2020, 1, 1, tzinfo=UTC), ""))
    assert note.facts.size_bytes >= 0
    assert 0 <= note.facts.mode <= 0o777
    path_of(values)


@given(content=st.binary(max_size=200) | st.text(alphabet='[]{}":,0123456789', max_size=100).map(str.encode))
def test_a_hostile_record_is_none(content: bytes) -> None:
    """Whatever lies where a record should is a record or none."""
    assert record_of(content, NAME) is None
    assert record_of(b"[" * 16_000, NAME) is None


def test_it_is_a_store(on_moto: Place) -> None:
    """An S3 store has what every store has."""
    store: Store = on_moto.store()
    assert store.space() is None
    assert store.batches is False
    store.flush()


def test_the_servers_are_two(rclone: Server, moto: Server) -> None:
    """Two servers of different make stand for all."""
    assert {rclone.kind, moto.kind} == {"rclone", "moto"}
