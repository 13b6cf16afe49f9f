"""Structure of files that are not movies."""

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import write_png

from coldchain.errors import FormatError, IncompleteFileError, StorageError
from coldchain.formats.structure import check_structure

XML = '<?xml version="1.0" encoding="utf-8"?>\n<a xmlns="urn:x"><b key="v">text µ</b><![CDATA[ x ]]><c/></a>'


@pytest.mark.parametrize("name", ["a.mdoc", "a.jpg", "a.txt", "a", "a.star"])
def test_other_files_need_only_not_be_empty(tmp_path: Path, name: str) -> None:
    """Kinds without a structure to check are whole unless empty."""
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(IncompleteFileError, match="empty"):
        check_structure(path)
    path.write_bytes(b"x")
    check_structure(path)


@pytest.mark.parametrize("name", ["a.xml", "EpuSession.dm", "A.XML"])
def test_xml_must_parse_to_its_end(tmp_path: Path, name: str) -> None:
    """Every document cut short is incomplete, and only the whole one passes."""
    path = tmp_path / name
    data = XML.encode()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(IncompleteFileError):
            check_structure(path)
    path.write_bytes(data)
    check_structure(path)


@pytest.mark.parametrize(
    "data", [b"<a></b>", b"<a>&nothing;</a>", b"plain text", b"<a/><b/>", b'<?xml version="1.0" encoding="no"?><a/>']
)
def test_what_more_bytes_cannot_mend_is_a_format_error(tmp_path: Path, data: bytes) -> None:
    """Mismatched tags, unknown encodings and plain text are wrong, not incomplete."""
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        check_structure(path)
    assert not isinstance(caught.value, IncompleteFileError)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".tiff", ".eer", ".png", ".gain", ".xml", ".dm", ".mdoc", ".jpg"])
def test_every_kind_of_empty_file_is_incomplete(tmp_path: Path, suffix: str) -> None:
    """Zero bytes are incomplete whatever the name says."""
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(IncompleteFileError):
        check_structure(path)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".eer", ".png", ".xml", ".mdoc"])
def test_a_file_that_is_gone_is_a_storage_error(tmp_path: Path, suffix: str) -> None:
    """What cannot be read at all is no fault of its bytes."""
    with pytest.raises(StorageError):
        check_structure(tmp_path / f"gone{suffix}")


def test_names_of_all_kinds_are_read(tmp_path: Path) -> None:
    """Spaces, quotes, newlines and bytes that are no text in a name change nothing."""
    for name in (b"a b.xml", b'it\'s "x".xml', b"line\nbreak.xml", "Größe µ.xml".encode(), b"\xff\xfe.xml"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(XML.encode())
        check_structure(path)
        path.write_bytes(b"<a>")
        with pytest.raises(IncompleteFileError) as caught:
            check_structure(path)
        assert "\n" not in str(caught.value)
        str(caught.value).encode()


def test_a_wrong_png_check_sum_is_found(tmp_path: Path) -> None:
    """A PNG of the right length with a changed byte is damaged, and that is seen without decoding."""
    path = tmp_path / "a.png"
    write_png(path, np.arange(400, dtype=np.uint16).reshape(20, 20))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="check sum"):
        check_structure(path)


def test_a_jpeg_under_a_movies_name_must_have_a_header_and_an_end(tmp_path: Path) -> None:
    """A picture that calls itself a TIFF is looked at as the picture that it is."""
    path = tmp_path / "a.tif"
    whole = imagecodecs.jpeg8_encode(np.zeros((40, 60), np.uint8))
    path.write_bytes(whole)
    check_structure(path)
    for length in (30, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(IncompleteFileError):
            check_structure(path)
