"""What an exposure's files say about it, and whose word counts."""

from __future__ import annotations

from pathlib import Path

from coldchain.collect.metadata import (
    References,
    choose_reference,
    header_metadata,
    read_description,
    with_references,
)
from coldchain.formats.movie import probe_movie
from coldchain.model.optics import ExposureMetadata, Optics
from tests.collect.camera_folder import write_mdoc, write_movie, write_xml


def test_descriptions_are_read_by_their_suffix(tmp_path: Path) -> None:
    """XML and mdoc describe an exposure; nothing else does."""
    xml = read_description(write_xml(tmp_path / "x.xml"))
    mdoc = read_description(write_mdoc(tmp_path / "x.tif.mdoc"))
    assert xml is not None
    assert mdoc is not None
    assert (xml.source, mdoc.source) == ("epu-xml", "mdoc")
    assert read_description(tmp_path / "EpuSession.dm") is None


def test_a_header_gives_pixel_size_and_frames(tmp_path: Path) -> None:
    """As far as it knows them: a single image has no count of frames."""
    movie = write_movie(tmp_path / "m.mrc", frames=4, pixel_size_angstrom=0.9)
    optics = header_metadata(movie, probe_movie(movie)).optics
    assert optics.frame_count == 4
    assert optics.pixel_size_angstrom is not None
    assert abs(optics.pixel_size_angstrom - 0.9) < 1e-5
    image = write_movie(tmp_path / "i.mrc", frames=1)
    assert header_metadata(image, probe_movie(image)).optics.frame_count is None


def test_a_header_that_gives_one_angstrom_says_nothing(tmp_path: Path) -> None:
    """It is what programs write that know nothing."""
    movie = write_movie(tmp_path / "m.mrc", pixel_size_angstrom=1.0)
    assert header_metadata(movie, probe_movie(movie)).optics.pixel_size_angstrom is None


def test_the_named_reference_is_taken_and_no_other() -> None:
    """By its file name, whatever the camera computer's folders, nearest to the exposure first."""
    paths = ["other/Ref.mrc", "Ref.mrc", "frames/Ref.mrc", "gain.mrc"]
    assert choose_reference("X:\\refs\\ref.mrc", paths, "frames/x") == "frames/Ref.mrc"
    assert choose_reference("/refs/Ref.mrc", paths, "x") == "Ref.mrc"
    assert choose_reference("Ref.mrc", ["other/Ref.mrc"], "x") == "other/Ref.mrc"
    assert choose_reference("missing.mrc", paths, "x") is None


def test_without_a_name_the_first_reference_in_the_session_itself_counts() -> None:
    """One that lies deeper may be anything's."""
    assert choose_reference(None, ["deep/gain.mrc", "b_gain.mrc", "a_gain.mrc"], "x") == "b_gain.mrc"
    assert choose_reference(None, ["deep/gain.mrc"], "x") is None


def test_references_are_noted_as_paths_in_the_session() -> None:
    """A gain that was noted before stays; noting twice changes nothing."""
    references = References(gains=("gain.mrc",), defects=("sub/defects.txt",))
    described = ExposureMetadata(defects_name="defects.txt")
    noted = with_references(described, references, "x")
    assert (noted.optics.gain, noted.defects_name) == ("gain.mrc", "sub/defects.txt")
    assert with_references(noted, references, "x") == noted
    chosen = ExposureMetadata(optics=Optics(gain="mine.mrc"))
    assert with_references(chosen, references, "x").optics.gain == "mine.mrc"
    assert with_references(described, References(), "x") == described


def test_a_gain_that_is_named_is_waited_for_by_its_name() -> None:
    """Its bare name until it arrives, then its path; no other gain will do, and nothing is waited for unnamed."""
    named = ExposureMetadata(gain_name="X:\\refs\\SuperRef_1.mrc")
    waits = with_references(named, References(gains=("gain.mrc",)), "frames/x")
    assert waits.optics.gain == "SuperRef_1.mrc"
    assert with_references(waits, References(gains=("gain.mrc",)), "frames/x") == waits
    for path in ("deep/superref_1.mrc", "SuperRef_1.mrc"):
        come = with_references(waits, References(gains=("gain.mrc", path)), "frames/x")
        assert come.optics.gain == path
        again = with_references(come, References(gains=("gain.mrc", path, "frames/SuperRef_1.mrc")), "frames/x")
        assert again == come
    guessed = ExposureMetadata(gain_name="SuperRef_1.mrc", optics=Optics(gain="gain.mrc"))
    assert with_references(guessed, References(gains=("gain.mrc",)), "x").optics.gain == "SuperRef_1.mrc"
    assert with_references(ExposureMetadata(source="mdoc"), References(), "x").optics.gain is None
