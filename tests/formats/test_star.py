"""STAR files: what is written comes back, to us, to `starfile` and to RELION; and no name can break one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.star import Record, Table, Value, read_star, record, table, write_star

HOSTILE = [
    "plain/a.mrc",
    "with space.mrc",
    "it's.mrc",
    'say "x".mrc',
    "_lead.mrc",
    "data_table",
    "x data_table",
    "loop_",
    "#hash.mrc",
    ";semi",
    "a#b",
    "back\\slash.mrc",
    "µ\u00a0\u2028x.mrc",
    "undecodable\udcff.mrc",
    "[b]$",
    "'q'",
    '"q"',
]


def pairs(name: str, **values: Value) -> Record:
    """A record."""
    return Record(name, values)


def columns(name: str, **values: Sequence[Value]) -> Table:
    """A table."""
    return Table(name, values)


def test_blocks_come_back(tmp_path: Path) -> None:
    """Records and tables come back by name and in order, their values as text."""
    path = tmp_path / "a.star"
    write_star(path, [pairs("one", rlnA=3, rlnB=0.1, rlnC="x y"), columns("two", rlnD=[1, 2], rlnE=[-0.5, 2e-11])])
    blocks = read_star(path)
    assert list(blocks) == ["one", "two"]
    assert record(blocks, "one", path).values == {"rlnA": "3", "rlnB": "0.1", "rlnC": "x y"}
    assert table(blocks, "two", path).columns == {"rlnD": ("1", "2"), "rlnE": ("-0.5", "2e-11")}


def test_starfile_reads_the_same(tmp_path: Path) -> None:
    """The package that the field's tools use finds the same blocks, labels, numbers and names."""
    path = tmp_path / "a.star"
    # starfile does not read a quote within a table's name, nor a name that is no text.
    names = [name for name in HOSTILE if not {"'", '"'} & set(name) and name.isprintable()]
    numbers = [index / 7 for index in range(len(names))]
    write_star(path, [pairs("one", rlnA=300.0, rlnB="a 'b'"), columns("two", rlnName=names, rlnNumber=numbers)])
    blocks = starfile.read(path)
    assert blocks["one"] == {"rlnA": 300.0, "rlnB": "a 'b'"}
    assert blocks["two"]["rlnName"].tolist() == names
    assert blocks["two"]["rlnNumber"].tolist() == pytest.approx(numbers, rel=1e-8)


def test_an_empty_table_is_left_out(tmp_path: Path) -> None:
    """RELION would read what follows an empty table as its rows, so there is none."""
    path = tmp_path / "a.star"
    write_star(path, [columns("empty", rlnA=[]), columns("full", rlnA=[1])])
    assert list(read_star(path)) == ["full"]


def test_every_block_ends_with_an_empty_line(tmp_path: Path) -> None:
    """The last one too: RELION, having met the file's end in a table, would find no other block."""
    path = tmp_path / "a.star"
    write_star(path, [columns("first", rlnA=[1]), columns("last", rlnA=[1])])
    assert path.read_text().endswith("1\n\n")


@given(name=st.text(min_size=1), in_table=st.booleans())
def test_a_name_comes_back_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str, in_table: bool) -> None:
    """No name breaks a file: it comes back exactly and its neighbours too, or nothing is written."""
    path = tmp_path_factory.getbasetemp() / "hostile.star"
    path.unlink(missing_ok=True)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return  # such a name is no path
    block = columns("b", rlnA=[name, "x"], rlnB=["y", name]) if in_table else pairs("b", rlnA=name, rlnB="y")
    try:
        write_star(path, [block, pairs("after", rlnC=1)])
    except FormatError:
        assert not path.exists()
        return
    blocks = read_star(path)
    found = table(blocks, "b", path).columns if in_table else record(blocks, "b", path).values
    wanted = {"rlnA": (name, "x"), "rlnB": ("y", name)} if in_table else {"rlnA": name, "rlnB": "y"}
    assert found == wanted
    assert record(blocks, "after", path).values == {"rlnC": "1"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back(tmp_path: Path, name: str) -> None:
    """Names that look like parts of a STAR file are quoted, so that a shell's rules read them too."""
    path = tmp_path / "a.star"
    write_star(path, [pairs("b", rlnA=name, rlnB=1)])
    assert record(read_star(path), "b", path).values["rlnA"] == name
    (line,) = [line for line in os.fsdecode(path.read_bytes()).split("\n") if line.startswith("_rlnA")]
    assert shlex.split(line) == ["_rlnA", name]


@pytest.mark.parametrize(
    ("name", "trouble"),
    [("a\nb", "control"), ("a\tb", "control"), ("a\x00b", "control"), ("\"a'", "quote"), ("a  b", "two spaces")],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, trouble: str) -> None:
    """The name, what is wrong with it and what to do are said, and there is no file."""
    path = tmp_path / "a.star"
    with pytest.raises(FormatError, match=trouble) as refusal:
        write_star(path, [columns("b", rlnA=[name])])
    assert "Rename" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(tmp_path: Path, number: float) -> None:
    """RELION would read 0 where a file says nan."""
    with pytest.raises(FormatError, match="finite"):
        write_star(tmp_path / "a.star", [pairs("b", rlnA=number)])


def test_columns_have_one_length(tmp_path: Path) -> None:
    """A table with a hole is not written."""
    with pytest.raises(FormatError, match="length"):
        write_star(tmp_path / "a.star", [columns("b", rlnA=[1, 2], rlnB=[1])])


def test_relion_reads_hostile_names(tmp_path: Path) -> None:
    """RELION takes every name for what it is: it is there again in the table that RELION writes."""
    handler = shutil.which("relion_star_handler")
    if handler is None:
        pytest.skip("the package relion is not installed")
    count = len(HOSTILE)
    optics = columns(
        "optics",
        rlnOpticsGroupName=["g"],
        rlnOpticsGroup=[1],
        rlnMicrographOriginalPixelSize=[1.0],
        rlnVoltage=[300.0],
        rlnSphericalAberration=[2.7],
        rlnAmplitudeContrast=[0.1],
    )
    names = columns(
        "micrographs", rlnMicrographName=HOSTILE, rlnOpticsGroup=[1] * count, rlnAccumMotionTotal=[1.0] * count
    )
    write_star(tmp_path / "a.star", [optics, names])
    options = ["--i", "a.star", "--i_tablename", "micrographs", "--o", "b.star"]
    doubling = ["--operate", "rlnAccumMotionTotal", "--multiply_by", "2"]
    subprocess.run([handler, *options, *doubling], cwd=tmp_path, check=True, capture_output=True)
    rows = (tmp_path / "b.star").read_bytes().split(b"_rlnAccumMotionTotal #3 \n")[1].rstrip().split(b"\n")
    assert len(rows) == count
    for name, row in zip(HOSTILE, rows, strict=True):
        assert os.fsencode(name) in row
        assert row.split()[-1] == b"2.000000"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "no data block"),
        ("hello\n", "outside every data block"),
        ("data_a\n_x 1 2\n", "no label with its value"),
        ("data_a\nx 1\n", "no label with its value"),
        ("data_a\nloop_\n_x #1\n_y #2\n1 2\n3\n", "1 values for 2 labels"),
        ("data_a\nloop_\n_x #1\n1 2\n", "2 values for 1 labels"),
        ("data_a\n_x 1\nloop_\n_y #1\n1\n", "second set of values"),
        ("data_a\n_x\n;text\n;\n", "no label with its value"),
        ("data_a\nloop_\n_x #1\n;text\n;\n", "text over several lines"),
        ("data_a\n_x 'open\n", "open quote"),
        ("data_a\nloop_\n1\n", "1 values for 0 labels"),
    ],
)
def test_what_is_no_star_file_is_said(tmp_path: Path, content: str, found: str) -> None:
    """Each kind of damage has its words."""
    path = tmp_path / "a.star"
    path.write_text(content)
    with pytest.raises(FormatError, match=found):
        read_star(path)


@pytest.mark.parametrize("content", ["data_a\nloop_\n_x #1\n_y #2\n1 2\n3", "data_a\n_x 'op", "data_a\n_x 1\n_y"])
def test_a_cut_row_is_incomplete(tmp_path: Path, content: str) -> None:
    """A file that ends inside a row may still be growing."""
    path = tmp_path / "a.star"
    path.write_text(content)
    with pytest.raises(IncompleteFileError):
        read_star(path)


def test_other_programs_habits_are_read(tmp_path: Path) -> None:
    """Comments, line ends of Windows, single quotes, quotes within words, nameless blocks, tables with nothing in."""
    path = tmp_path / "a.star"
    path.write_bytes(
        b'# c\r\ndata_\r\n\r\nloop_ \r\n_a #1 \r\n_b\r\n 1 \'x y\' # why\r\n2 "it"s"\r\n\r\n'
        b"data_none\nloop_\n_a\n\ndata_none\n_a 2\n"
    )
    blocks = read_star(path)
    assert table(blocks, "", path).columns == {"a": ("1", "2"), "b": ("x y", 'it"s')}
    assert len(table(blocks, "none", path)) == 0


def test_a_missing_block_is_said(tmp_path: Path) -> None:
    """As is one that is a record and not a table."""
    path = tmp_path / "a.star"
    write_star(path, [pairs("one", rlnA=1)])
    with pytest.raises(FormatError, match="data_two is missing"):
        table(read_star(path), "two", path)
    with pytest.raises(FormatError, match="data_one is a record"):
        table(read_star(path), "one", path)


@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"data_a\n", b"data_a\nloop_\n_x #1\n"]))
def test_no_content_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    """Any bytes give blocks or an error of ours."""
    path = tmp_path_factory.getbasetemp() / "any.star"
    path.write_bytes(start + content)
    try:
        blocks = read_star(path)
    except FormatError:
        return
    assert blocks


def test_a_file_beyond_reason_is_not_read(tmp_path: Path) -> None:
    """A sparse file of a gigabyte costs no gigabyte."""
    path = tmp_path / "a.star"
    with path.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(FormatError, match="larger than"):
        read_star(path)
