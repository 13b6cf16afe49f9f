"""DigitalMicrograph files: the reference is found in the tree, and a tree that lies is a stated error."""

from pathlib import Path

import numpy as np
import pytest
from dm_files import DATA_TYPES, Value, Writer, write_dm
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.dm4 import is_dm, read_dm

RNG = np.random.default_rng(31)
BOTH = [(3, "<"), (3, ">"), (4, "<"), (4, ">")]


@pytest.mark.parametrize("dtype", DATA_TYPES)
@pytest.mark.parametrize(("version", "order"), BOTH)
def test_every_type_comes_back_bottom_row_first(tmp_path: Path, version: int, order: str, dtype: str) -> None:
    """Both versions, both byte orders, and every type of real numbers; the file's first row is the picture's top."""
    picture = (200 * RNG.standard_normal((11, 17))).astype(dtype)
    write_dm(tmp_path / "a.dm4", picture, version, order)
    found = read_dm(tmp_path / "a.dm4")
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert np.array_equal(found, picture)


@pytest.mark.parametrize(("version", "order"), BOTH)
def test_the_largest_image_is_taken(tmp_path: Path, version: int, order: str) -> None:
    """Neither a thumbnail of colours, though it has more pixels, nor a smaller image beside it."""
    writer = Writer(version, order)
    top_first = RNG.standard_normal((9, 12)).astype(np.float32)
    images = [writer.thumbnail(64), writer.image(np.ones((3, 4), np.float32)), writer.image(top_first)]
    (tmp_path / "a").write_bytes(writer.document(images))
    assert np.array_equal(read_dm(tmp_path / "a"), top_first[::-1])


@pytest.mark.parametrize("version", [3, 4])
def test_stacks_have_their_frames_first(tmp_path: Path, version: int) -> None:
    """Three sides are frames, rows and columns; a stack of one is an image."""
    stack = RNG.integers(0, 100, (3, 5, 7)).astype(np.uint16)
    write_dm(tmp_path / "a.dm4", stack, version)
    assert np.array_equal(read_dm(tmp_path / "a.dm4"), stack)
    write_dm(tmp_path / "a.dm4", stack[:1], version)
    assert np.array_equal(read_dm(tmp_path / "a.dm4"), stack[0])


def test_another_reader_finds_the_same(tmp_path: Path) -> None:
    """ncempy, which reads such files for microscopists, finds the same pixels, in the file's own row order."""
    ncempy = pytest.importorskip("ncempy.io.dm", reason="ncempy is not installed")
    picture = RNG.standard_normal((11, 17)).astype(np.float32)
    for version in (3, 4):
        path = tmp_path / f"a.dm{version}"
        write_dm(path, picture, version)
        assert np.array_equal(ncempy.dmReader(str(path))["data"][::-1], picture)


def test_told_by_content() -> None:
    """Version and byte order; not an MRC of big-endian numbers that begins alike."""
    writer = Writer(4, "<")
    whole = writer.document([])
    assert is_dm(whole)
    assert is_dm(Writer(3, ">").document([writer.thumbnail()]))
    assert not is_dm(whole[:15])
    assert not is_dm(b"\0\0\0\5" + whole[4:])
    assert not is_dm(whole[:15] + b"\2" + whole[16:])
    mrc = bytearray(1024)
    mrc[3], mrc[11], mrc[208:211] = 3, 1, b"MAP"
    assert not is_dm(bytes(mrc))


@pytest.mark.parametrize(("version", "order"), BOTH)
def test_cut_anywhere_it_is_incomplete(tmp_path: Path, version: int, order: str) -> None:
    """Whatever byte is the last, the file is said to end too early: it may still be growing."""
    path = tmp_path / "a.dm4"
    write_dm(path, RNG.standard_normal((6, 7)).astype(np.float32), version, order)
    whole = path.read_bytes()
    read_dm(path)
    for length in range(0, len(whole) - 8, 5):  # the last eight are the end's own mark
        path.write_bytes(whole[:length])
        with pytest.raises(IncompleteFileError):
            read_dm(path)


@given(version=st.sampled_from([3, 4]), data=st.data())
def test_a_changed_byte_gives_an_image_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, version: int, data: st.DataObject
) -> None:
    """No byte, changed to anything, leads to another error or to more pixels than the file has."""
    writer = Writer(version)
    whole = bytearray(writer.document([writer.thumbnail(), writer.image(np.ones((5, 4), np.float32))]))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.dm4"
    path.write_bytes(whole)
    try:
        assert read_dm(path).nbytes <= len(whole)
    except FormatError as failure:
        assert failure.path == path


def with_image(**changes: object) -> bytes:
    """A DM4 file whose image has other tags than it should have."""
    writer = Writer()
    image = writer.image(np.ones((4, 5), np.float32))
    assert isinstance(image, dict)
    image["ImageData"] = {**image["ImageData"], **changes}
    return writer.document([image])


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_image(DataType=Writer().number(3)), r"type 3 of shape \(4, 5\); expected an image of real numbers"),
        (with_image(Dimensions=[Writer().number(20)]), r"type 2 of shape \(20,\)"),
        (with_image(Dimensions=[Writer().number(5), Writer().number(5)]), r"80 bytes; expected 100 bytes"),
        (with_image(Dimensions=[Writer().number(-4, 3), Writer().number(-5, 3)]), r"1 to 1,048,576 pixels a side"),
        (with_image(Dimensions=[Writer().number(1 << 40, 11)] * 2), r"1 to 1,048,576 pixels a side"),
        (with_image(Dimensions=[Writer().text("five")] * 2), r"type 20; expected a whole number"),
        (with_image(Data=Value((20, 6, HUGE), b"")), r"promises 18,446,744,073,709,551,616 bytes"),
        (with_image(Data=Value((20, *[20] * 50, 6, *[HUGE] * 51), b"")), r"promises"),
        (with_image(Data=Value((20, 99, 4), b"")), r"described as \(99,\)"),
        (with_image(Data=Value((15, 0, HUGE, 0, 6), b"")), r"described as \(15, 0, 4"),
        (with_image(Data=Value((99,) * 5000, b"")), r"5000 words of description"),
        (with_image(Data=Value((), b"")), r"0 words of description"),
        (with_image().replace(b"%%%%", b"%%#%", 1), r"do not begin with %%%%"),
        (with_image().replace(b"\x14\0\x09ImageList", b"\x16\0\x09ImageList", 1), r"is of kind 22"),
        (Writer().document([]), r"images are: none"),
        (b"not a file of DigitalMicrograph", r"begins with 6e 6f 74"),
    ],
)
def test_trees_that_lie_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """What cannot be is said before any memory is taken for it."""
    (tmp_path / "a.dm4").write_bytes(content)
    with pytest.raises(FormatError, match=words) as caught:
        read_dm(tmp_path / "a.dm4")
    assert not isinstance(caught.value, IncompleteFileError)
    assert caught.value.remedy


@pytest.mark.parametrize("version", [3, 4])
def test_trees_without_end_are_refused(tmp_path: Path, version: int) -> None:
    """Directories in directories, and directories of ever more tags, come to a stated end."""
    wide = 8 if version == 4 else 4
    head = version.to_bytes(4, "big") + bytes(wide) + b"\0\0\0\1"
    size = bytes(8) if version == 4 else b""
    deeper = b"\1\0" + (1).to_bytes(wide, "big") + b"\x14\0\0" + size
    (tmp_path / "a").write_bytes(head + deeper * 5000)
    with pytest.raises(FormatError, match="directories lie 65 deep"):
        read_dm(tmp_path / "a")
    empty = b"\x14\0\0" + size + b"\1\0" + bytes(wide)
    (tmp_path / "a").write_bytes(head + b"\1\0" + (1 << 31).to_bytes(wide, "big") + empty * 200_001)
    with pytest.raises(FormatError, match="at most 200,000 tags"):
        read_dm(tmp_path / "a")
