"""What holds for every store, whatever it is made of."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldchain.errors import StorageError, VerificationError
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER, FileFacts, Incoming, Store
from tests.storage.drives import make_drive  # noqa: F401  # a fixture
from tests.storage.every_store import MAKERS, Subject, identity

NAME = "krios/visit/Data/movie.tiff"
TIME_NS = 1_600_000_000_123_456_789
RING = Ring(buffer_bytes=1 << 20, count=3)


@pytest.fixture(params=list(MAKERS))
def tested(request: pytest.FixtureRequest) -> Subject:
    """Every store in turn."""
    made: Subject = MAKERS[request.param](request)
    return made


@pytest.fixture
def store(tested: Subject) -> Store:
    """Every store in turn."""
    return tested.store


def content_of(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size_bytes)


def sha256_of(content: bytes) -> str:
    """A content's digest."""
    return hashlib.sha256(content).hexdigest()


def facts_of(content: bytes) -> FileFacts:
    """What a source of that content would have."""
    return FileFacts(len(content), TIME_NS, 0o640)


def write_all(incoming: Incoming, content: bytes) -> None:
    """Give a copy its bytes, in pieces."""
    for at in range(incoming.skip_bytes, len(content), RING.buffer_bytes):
        incoming.write(memoryview(content)[at : at + RING.buffer_bytes])


def put(store: Store, content: bytes, name: str = NAME) -> tuple[str, ReadBack]:
    """Make a copy; what it is stored as, and what reading it back gave."""
    with store.receive(name, facts_of(content)) as incoming:
        write_all(incoming, content)
        incoming.seal()
        found = incoming.prove(sha256_of(content), RING)
        incoming.publish(sha256_of(content), RING)
        return incoming.stored_as, found


def content_in(store: Store, stored_as: str) -> bytes:
    """What reading gives."""
    buffer, content = memoryview(bytearray(1 << 20)), bytearray()
    with store.reading(stored_as) as opened:
        while count := opened.fill(buffer):
            content += buffer[:count]
        assert opened.facts.size_bytes == len(content)
    return bytes(content)


def listed(store: Store) -> dict[str, int]:
    """What a store lists, and its sizes."""
    found = list(store.walk())
    assert len({one.stored_as for one in found}) == len(found)
    return {one.stored_as: one.size_bytes for one in found}


@pytest.mark.parametrize("size", [0, 1, 4096, 5 * (1 << 20) + 1])
def test_a_copy_is_whole_and_has_its_time_and_mode(tested: Subject, size: int) -> None:
    """What went in is proved, listed, read and confirmed, by another object for the same store as well."""
    content = content_of(size)
    stored_as, found = put(tested.store, content)
    assert stored_as == tested.store.stored_name(NAME)
    assert (found.sha256, found.size_bytes) == (sha256_of(content), size)
    for store in (tested.store, tested.again()):
        assert listed(store) == {stored_as: size}
        assert store.size_of(stored_as) == size
        assert content_in(store, stored_as) == content
        assert store.read_back(stored_as, RING) == found
        assert store.confirm(stored_as, sha256_of(content), size, RING).sha256 == sha256_of(content)
        with store.reading(stored_as) as opened:
            assert abs(opened.facts.modified_ns - TIME_NS) < tested.time_step_ns
            if tested.keeps_modes:
                assert opened.facts.mode & 0o777 == 0o640


def test_many_copies_become_durable_together(store: Store) -> None:
    """Copies that are left to the flush are as whole as others."""
    contents = {f"krios/visit/{n % 3}/{n}.xml": content_of(1000 + n, n) for n in range(20)}
    with ExitStack() as stack:
        copies = []
        for name, content in contents.items():
            copy = stack.enter_context(store.receive(name, facts_of(content)))
            write_all(copy, content)
            copy.seal(durable=False)
            copies.append((copy, sha256_of(content)))
        store.flush()
        assert listed(store) == {}
        for copy, sha256 in copies:
            assert copy.prove(sha256, RING).sha256 == sha256
            copy.publish(sha256, RING, durable=False)
        store.flush()
    stored = [copy.stored_as for copy, _ in copies]
    assert [content_in(store, name) for name in stored] == list(contents.values())
    assert set(listed(store)) == set(stored)


def test_nothing_half_written_has_a_name(store: Store) -> None:
    """Until it is published, a copy cannot be found; a sweep meanwhile does it no harm."""
    content = content_of(10_000)
    with store.receive(NAME, facts_of(content)) as incoming:
        for step in (lambda: write_all(incoming, content), incoming.seal):
            step()
            assert store.size_of(incoming.stored_as) is None
            assert listed(store) == {}
            store.remove_partials()
        incoming.prove(sha256_of(content), RING)
        assert listed(store) == {}
        incoming.publish(sha256_of(content), RING)
        assert listed(store) == {incoming.stored_as: 10_000}


class _StopError(Exception):
    """Not an error of storage."""


@pytest.mark.parametrize("steps", range(4))
def test_a_copy_that_is_given_up_leaves_nothing(tested: Subject, steps: int) -> None:
    """Wherever it is left, nothing is listed afterwards, and the next copy of the name is whole."""
    content = content_of(10_000)

    def begin_and_stop() -> None:
        with tested.store.receive(NAME, facts_of(content)) as incoming:
            todo: list[Callable[[], object]] = [
                lambda: write_all(incoming, content),
                incoming.seal,
                lambda: incoming.prove(sha256_of(content), RING),
            ]
            for step in todo[:steps]:
                step()
            raise _StopError

    with pytest.raises(_StopError):
        begin_and_stop()
    assert listed(tested.store) == {}
    assert tested.store.size_of(tested.store.stored_name(NAME)) is None
    stored_as, _ = put(tested.again(), content)
    assert content_in(tested.store, stored_as) == content


def test_what_is_not_what_it_should_be_is_not_proved(store: Store) -> None:
    """A copy whose content is another than the source's is refused, and leaves nothing."""
    content = content_of(10_000)

    def copy_wrongly() -> None:
        with store.receive(NAME, facts_of(content)) as incoming:
            write_all(incoming, content[:-1] + b"?")
            incoming.seal()
            incoming.prove(sha256_of(content), RING)

    with pytest.raises(VerificationError):
        copy_wrongly()
    assert listed(store) == {}


def test_other_content_of_the_same_name_is_kept_aside(store: Store) -> None:
    """Nothing is overwritten: what stood there gets a name that tells, each time; the same content is just there."""
    first, second = content_of(5000, 1), content_of(6000, 2)
    stored_as, _ = put(store, first)
    put(store, first)
    assert listed(store) == {stored_as: 5000}
    asides = []
    for content in (second, first, second):
        with store.receive(NAME, facts_of(content)) as incoming:
            write_all(incoming, content)
            incoming.seal()
            incoming.prove(sha256_of(content), RING)
            incoming.publish(sha256_of(content), RING)
            assert incoming.kept is not None
            asides.append((incoming.kept.path, incoming.kept.sha256))
        assert content_in(store, stored_as) == content
    assert [sha256 for _, sha256 in asides] == [sha256_of(content) for content in (first, second, first)]
    assert set(listed(store)) == {stored_as, *(path for path, _ in asides)}
    for path, sha256 in asides:
        assert sha256_of(content_in(store, path)) == sha256


PARTS = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.binary(min_size=1, max_size=30).map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    ),
    st.sampled_from(
        [
            "CON",
            "a:b",
            "x" * 255,
            "é" * 127,
            "-rf",
            "a.",
            "a ",
            "A",
            "%41",
            "two\nlines",
            "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),
        ]
    ),
).filter(lambda part: part not in (".", ".."))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.lists(PARTS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_name_can_be_stored(tested: Subject, names: list[list[str]]) -> None:
    """Whatever a source's name is made of, its copy is listed under the name that it was said to get."""
    before = set(listed(tested.store))
    for parts in names:
        relative = "/".join(["krios", *parts[:-1], "file " + parts[-1]])
        content = relative.encode("utf-8", "surrogateescape")
        stored_as, _ = put(tested.store, content, relative)
        assert content_in(tested.again(), stored_as) == content
        before.add(stored_as)
    assert before <= set(listed(tested.store))


def test_a_damaged_copy_is_not_confirmed(tested: Subject) -> None:
    """A flipped byte, first, middle or last, is found before anything relies on the copy."""
    if tested.flip is None:
        pytest.skip("nobody can damage what is in this store")
    content = content_of(9_999)
    stored_as, _ = put(tested.store, content)
    for at in (0, 5000, 9_998):
        tested.flip(stored_as, at)
        with pytest.raises(VerificationError):
            tested.store.confirm(stored_as, sha256_of(content), len(content), RING)
        assert tested.store.read_back(stored_as, RING).sha256 != sha256_of(content)
        tested.flip(stored_as, at)
        tested.store.confirm(stored_as, sha256_of(content), len(content), RING)


def test_only_what_is_there_is_confirmed(store: Store) -> None:
    """Another digest, another size and a missing file are each refused."""
    content = content_of(1000)
    stored_as, _ = put(store, content)
    for sha256, size_bytes in ((sha256_of(b""), 1000), (sha256_of(content), 999)):
        with pytest.raises(VerificationError):
            store.confirm(stored_as, sha256, size_bytes, RING)
    for act in (
        lambda: store.confirm(stored_as + "x", sha256_of(content), 1000, RING),
        lambda: store.read_back(stored_as + "x", RING),
        lambda: content_in(store, stored_as + "x"),
        lambda: store.move(stored_as + "x", "krios/elsewhere"),
    ):
        with pytest.raises(StorageError) as caught:
            act()
        assert caught.value.remedy
        assert not store.is_at_fault(caught.value)
    assert store.size_of(stored_as + "x") is None


def test_a_file_is_moved_and_never_over_another(store: Store) -> None:
    """A move makes the folders that it needs; where its new name is taken, both files stay as they are."""
    one, other = content_of(1000, 1), content_of(1000, 2)
    first, _ = put(store, one)
    second, _ = put(store, other, "krios/visit/other.tiff")
    with pytest.raises(StorageError):
        store.move(first, second)
    assert (content_in(store, first), content_in(store, second)) == (one, other)
    store.move(first, "krios/visit/deep/er/moved.tiff")
    assert set(listed(store)) == {"krios/visit/deep/er/moved.tiff", second}
    assert content_in(store, "krios/visit/deep/er/moved.tiff") == one


def test_the_trash_is_not_listed_and_gives_back(store: Store) -> None:
    """What was moved to the trash is not the store's any more, can be confirmed there, moved back, and removed."""
    content = content_of(1000)
    stored_as, _ = put(store, content)
    trashed = f"{TRASH_FOLDER}/1234/{stored_as}"
    store.move(stored_as, trashed)
    assert listed(store) == {}
    assert store.size_of(trashed) == 1000
    store.confirm(trashed, sha256_of(content), 1000, RING)
    store.move(trashed, stored_as)
    assert content_in(store, stored_as) == content
    store.move(stored_as, trashed)
    assert store.remove(trashed)
    assert store.size_of(trashed) is None


def test_what_is_removed_is_gone(tested: Subject) -> None:
    """Removing says whether there was anything, leaves other files alone, and the name can be used again."""
    content = content_of(1000)
    first, _ = put(tested.store, content)
    second, _ = put(tested.store, content, "krios/visit/Data/other.tiff")
    assert tested.store.remove(first)
    assert not tested.store.remove(first)
    assert listed(tested.again()) == {second: 1000}
    assert tested.store.remove(second)
    assert listed(tested.again()) == {}
    again, _ = put(tested.store, content)
    assert content_in(tested.again(), again) == content


def test_a_store_bears_its_identity(tested: Subject) -> None:
    """It is set once, seen by everyone, and never replaced by another."""
    store = tested.store
    assert store.mark() is None
    store.set_mark(identity(7))
    store.set_mark(identity(7))
    with pytest.raises(StorageError):
        store.set_mark(identity(8))
    assert store.mark() == tested.again().mark() == identity(7)
    assert listed(store) == {}
    store.identity = identity(7)
    stored_as, _ = put(store, b"content")
    assert content_in(store, stored_as) == b"content"


def everything(store: Store, stored_as: str) -> dict[str, Callable[[], object]]:
    """Every method that touches a store."""
    return {
        "space": store.space,
        "size_of": lambda: store.size_of(stored_as),
        "receive": lambda: put(store, b"other content"),
        "flush": store.flush,
        "read_back": lambda: store.read_back(stored_as, RING),
        "confirm": lambda: store.confirm(stored_as, sha256_of(b"content"), 7, RING),
        "reading": lambda: content_in(store, stored_as),
        "move": lambda: store.move(stored_as, "krios/moved"),
        "remove": lambda: store.remove(stored_as),
        "walk": lambda: list(store.walk()),
        "remove_partials": store.remove_partials,
    }


def test_another_stores_identity_stops_everything(tested: Subject) -> None:
    """Where another store lies in its place, nothing is written, removed or read, and the whole store is at fault."""
    store = tested.store
    store.set_mark(identity(7))
    store.identity = identity(7)
    stored_as, _ = put(store, b"content")
    store.identity = identity(8)
    for name, act in everything(store, stored_as).items():
        with pytest.raises(StorageError, match="another store") as caught:
            act()
        assert "store adopt" in caught.value.remedy, name
        assert store.is_at_fault(caught.value)
    store.identity = identity(7)
    assert listed(store) == {stored_as: 7}


def test_an_empty_store_in_its_place_stops_everything(tested: Subject) -> None:
    """Where a drive is replaced by an empty folder or disk, nothing is written there."""
    store = tested.store
    if tested.swap is None:
        pytest.skip("nobody can put another in this store's place")
    store.set_mark(identity(7))
    store.identity = identity(7)
    stored_as, _ = put(store, b"content")
    tested.swap()
    for act in everything(store, stored_as).values():
        with pytest.raises(StorageError, match="bears no identity") as caught:
            act()
        assert store.is_at_fault(caught.value)
    store.identity = None
    assert listed(store) == {}


def test_a_store_that_is_swapped_under_a_copy_does_not_get_it(tested: Subject) -> None:
    """A copy that was begun before is not published into what lies there now."""
    store = tested.store
    if tested.swap is None:
        pytest.skip("nobody can put another in this store's place")
    store.set_mark(identity(7))
    store.identity = identity(7)
    swap = tested.swap

    def copy_and_swap() -> None:
        with store.receive(NAME, facts_of(b"content")) as incoming:
            write_all(incoming, b"content")
            incoming.seal()
            incoming.prove(sha256_of(b"content"), RING)
            swap()
            incoming.publish(sha256_of(b"content"), RING)

    with pytest.raises(StorageError):
        copy_and_swap()
    store.identity = None
    assert listed(store) == {}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "a/../../b", "a/\0", IDENTITY_NAME, f"{TRASH_FOLDER}/a"]
)
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    """No copy is written outside the store, over its identity or into its trash."""
    with pytest.raises(StorageError):
        put(store, b"content", name)
    assert listed(store) == {}


@pytest.mark.parametrize("name", ["", "..", "/etc/passwd", "a/../../b", IDENTITY_NAME])
def test_no_stored_name_leads_out_of_the_store(store: Store, name: str) -> None:
    """Neither is anything read, moved or removed there."""
    stored_as, _ = put(store, b"content")
    store.set_mark(identity(7))
    for act in (
        lambda: content_in(store, name),
        lambda: store.read_back(name, RING),
        lambda: store.move(stored_as, name),
        lambda: store.move(name, "krios/moved"),
        lambda: store.remove(name),
        lambda: store.size_of(name),
    ):
        with pytest.raises(StorageError):
            act()
    assert listed(store) == {stored_as: 7}
    assert store.mark() == identity(7)


def test_a_store_tells_its_room(store: Store) -> None:
    """What is left is less than what there is, where a store has an end."""
    space = store.space()
    if space is not None:
        assert 0 < space.free_bytes <= space.total_bytes


def test_several_threads_disturb_each_other_not(store: Store) -> None:
    """Copies of different and of the same files at once are all whole."""
    rings = [Ring(buffer_bytes=1 << 20, count=2) for _ in range(4)]

    def copy(number: int) -> str:
        content = content_of(20_000, number // 2)
        with store.receive(f"krios/visit/{number // 2}.tiff", facts_of(content)) as incoming:
            write_all(incoming, content)
            incoming.seal(durable=False)
            store.flush()
            incoming.prove(sha256_of(content), rings[number % 4])
            incoming.publish(sha256_of(content), rings[number % 4])
            return incoming.stored_as

    def copy_some(first: int) -> list[str]:
        return [copy(number) for number in range(first, 24, 4)]

    with ThreadPoolExecutor(max_workers=4) as pool:
        stored = {name for names in pool.map(copy_some, range(4)) for name in names}
    assert set(listed(store)) == stored
    assert len(stored) == 12
    for number in range(12):
        name = store.stored_name(f"krios/visit/{number}.tiff")
        assert content_in(store, name) == content_of(20_000, number)
