"""XML that microscopes write, read so that no document can do harm: no document types, no entities, a bound on size."""

from __future__ import annotations

import xml.parsers.expat.errors as expat_errors
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError  # the exception only; defusedxml does the parsing

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from coldchain.errors import FormatError, IncompleteFileError, MetadataError
from coldchain.formats.files import reading

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element  # the type only

_LARGEST_BYTES = 256 << 20
# What expat says where a document stops before its root element does.
_CUT_SHORT = frozenset(
    expat_errors.codes[message]
    for message in (
        expat_errors.XML_ERROR_NO_ELEMENTS,
        expat_errors.XML_ERROR_UNCLOSED_TOKEN,
        expat_errors.XML_ERROR_PARTIAL_CHAR,
        expat_errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)
_REMEDY = "Wait until it is written, or fetch it from the microscope again"


def read_xml(path: Path) -> Element:
    """The root element of the document at `path`.

    Raises IncompleteFileError where it ends before its root does, FormatError where it is no XML, MetadataError where
    it declares a document type or entities or is larger than 256 MiB, StorageError where it cannot be read.
    """
    with reading(path) as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if not data.strip(b"\0 \t\r\n"):
        raise IncompleteFileError("the file is empty", expected="an XML document", remedy=_REMEDY, path=path)
    if len(data) > _LARGEST_BYTES:
        raise MetadataError(
            f"the document is larger than {_LARGEST_BYTES:,} bytes", expected="what a microscope writes", path=path
        )
    try:
        root: Element = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as refusal:
        raise MetadataError(
            f"the document declares what no microscope writes: {type(refusal).__name__}",
            expected="plain elements",
            remedy="Do not use this file; see where it comes from",
            path=path,
        ) from refusal
    except ParseError as failure:
        kind = IncompleteFileError if failure.code in _CUT_SHORT else FormatError
        raise kind(f"the XML cannot be read: {failure}", remedy=_REMEDY, path=path) from failure
    except (ValueError, LookupError) as failure:  # an encoding that does not exist
        raise FormatError(f"the XML cannot be read: {failure}", remedy=_REMEDY, path=path) from failure
    return root


def local_name(element: Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def child(element: Element | None, *names: str) -> Element | None:
    """The element reached by following first children of these local names; None where one is missing."""
    for name in names:
        if element is None:
            return None
        element = next((e for e in element if local_name(e) == name), None)
    return element


def text(element: Element | None) -> str | None:
    """An element's text without surrounding blanks; None where there is none."""
    value = (element.text or "").strip() if element is not None else ""
    return value or None
