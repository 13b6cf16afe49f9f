"""What a path says about its file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.collect.layout import (
    GridSquare,
    Placement,
    exposure_name,
    folders_above,
    place,
    places_seen,
    taking_order,
)
from coldchain.model.files import FileKind
from coldchain.model.session import Layout
from tests.collect.camera_folder import DATA, STEM

EXPOSURE = f"Images-Disc1/GridSquare_8999138/Data/{STEM}"


def where(path: str, **options: object) -> Placement:
    """The place of a path that is given as text."""
    return place(PurePosixPath(path), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("_fractions.tiff", FileKind.MOVIE),
        ("_Fractions.mrc", FileKind.MOVIE),
        ("_EER.eer", FileKind.MOVIE),
        (".tif", FileKind.MOVIE),
        ("_Fractions.TIFF", FileKind.MOVIE),
        ("_FRACTIONS.MRC", FileKind.MOVIE),
        ("_fractions.Tif", FileKind.MOVIE),
        ("_eer.EER", FileKind.MOVIE),
        (".mrc", FileKind.MICROGRAPH),
        (".MRC", FileKind.MICROGRAPH),
        (".xml", FileKind.METADATA),
        (".XML", FileKind.METADATA),
        (".jpg", FileKind.PREVIEW),
        (".JPG", FileKind.PREVIEW),
    ],
)
def test_all_files_of_an_epu_exposure_belong_to_it(ending: str, kind: FileKind) -> None:
    """Whatever the suffix and its case, the exposure is the path in the session without it."""
    path = f"{EXPOSURE}{ending}"
    expected = Placement("visit", Layout.EPU, path, kind, EXPOSURE, "8999138", "9015883")
    assert where(f"visit/{path}") == expected


@pytest.mark.parametrize("disc", ["Images-Disc1", "Images-Disc2", "Images-Disc13", "images-disc1"])
@pytest.mark.parametrize("folder", ["", "session/", "visit/deep/session/"])
def test_an_epu_session_is_where_its_discs_are(folder: str, disc: str) -> None:
    """Any disc number, at any depth, in the root itself too."""
    found = where(f"{folder}{disc}/GridSquare_7/Data/FoilHole_1_Data_2_3_20250108_154915_fractions.tiff")
    assert found.session_folder == (folder.rstrip("/") or ".")
    assert (found.layout, found.grid_square, found.foil_hole) == (Layout.EPU, "7", "1")


@pytest.mark.parametrize(
    ("path", "folder", "kind", "square", "hole"),
    [
        ("v/s/EpuSession.dm", "v/s", FileKind.METADATA, None, None),
        ("v/s/Metadata/GridSquare_77.dm", "v/s", FileKind.METADATA, "77", None),
        ("s/Images-Disc1/GridSquare_7/GridSquare_20250108_151151.xml", "s", FileKind.METADATA, "7", None),
        ("s/Images-Disc1/GridSquare_7/GridSquare_20250108_151151.mrc", "s", FileKind.PREVIEW, "7", None),
        ("s/Images-Disc1/GridSquare_7/FoilHoles/FoilHole_5_20250108_1.xml", "s", FileKind.METADATA, "7", "5"),
        ("s/Images-Disc1/GridSquare_7/FoilHoles/FoilHole_5_20250108_1.mrc", "s", FileKind.PREVIEW, "7", "5"),
        ("s/Atlas/Atlas.dm", "s", FileKind.METADATA, None, None),
        ("s/Atlas/Atlas_1.mrc", "s", FileKind.PREVIEW, None, None),
        ("v/Sample1/Atlas/Tile_1.xml", "v", FileKind.METADATA, None, None),
    ],
)
def test_where_the_specimen_is_seen_is_no_exposure(
    path: str, folder: str, kind: FileKind, square: str | None, hole: str | None
) -> None:
    """The atlas, overviews of squares and holes, and the session's own files are kept, and nothing waits for them."""
    found = where(path)
    assert (found.session_folder, found.kind, found.exposure_name) == (folder, kind, None)
    assert (found.grid_square, found.foil_hole) == (square, hole)


def test_files_beside_the_discs_belong_to_their_session_at_any_depth() -> None:
    """Where a folder is known to be an EPU session, a gain reference in it is its, not the visit's."""
    assert where("v/s/K3_gain.mrc", sessions={"v/s": Layout.EPU}) == Placement(
        "v/s", Layout.EPU, "K3_gain.mrc", FileKind.GAIN
    )
    assert where("v/s/K3_gain.mrc").session_folder == "v"
    assert where("x.txt", sessions={".": Layout.EPU}).layout is Layout.EPU


@pytest.mark.parametrize(
    ("path", "folder", "layout"),
    [
        ("2024/visit/x.mrc", "2024/visit", Layout.PLAIN),
        ("2024/visit/deep/x.mrc.mdoc", "2024/visit", Layout.SERIALEM),
        ("2024/visit2/x.mrc", "2024", Layout.PLAIN),
        ("2024/x.mrc", "2024", Layout.PLAIN),
        ("2024/visit/epu/x.mrc", "2024/visit/epu", Layout.EPU),
        ("2024/visit/Images-Disc1/x.mrc", "2024/visit", Layout.EPU),
        ("2024/visit/new/EpuSession.dm", "2024/visit/new", Layout.EPU),
        ("2024/visit/new/Metadata/GridSquare_7.dm", "2024/visit/new", Layout.EPU),
        ("new/x.mrc", "new", Layout.PLAIN),
        ("x.mrc", ".", Layout.PLAIN),
    ],
)
def test_the_deepest_session_that_is_known_takes_the_file(path: str, folder: str, layout: Layout) -> None:
    """A session that was announced for a deeper folder gets its files, EPU's or not; others are as they were."""
    known = {".": Layout.PLAIN, "2024": Layout.PLAIN, "2024/visit": Layout.PLAIN, "2024/visit/epu": Layout.EPU}
    found = where(path, sessions=known)
    assert (found.session_folder, found.layout) == (folder, layout)
    assert f"{folder}/{found.path_in_session}".removeprefix("./") == path


@pytest.mark.parametrize(
    ("path", "folder", "name", "layout"),
    [
        ("s/x.tif", "s", "x", Layout.PLAIN),
        ("s/x.tif.mdoc", "s", "x", Layout.SERIALEM),
        ("s/x.mdoc", "s", "x", Layout.SERIALEM),
        ("s/frames/x.MRCS", "s", "frames/x", Layout.PLAIN),
        ("s/a/b/c/x.eer", "s", "a/b/c/x", Layout.PLAIN),
        ("x.mrc", ".", "x", Layout.PLAIN),
        ("s/May08_03.05.02.tif", "s", "May08_03.05.02", Layout.PLAIN),
        ("s/May08_03.05.02.tif.mdoc", "s", "May08_03.05.02", Layout.SERIALEM),
        (f"flat/{STEM}_Fractions.mrc", "flat", STEM, Layout.PLAIN),
        (f"flat/{STEM}.xml", "flat", STEM, Layout.PLAIN),
        ("s/_fractions.mrc", "s", "_fractions", Layout.PLAIN),
    ],
)
def test_a_plain_session_is_a_first_level_folder(path: str, folder: str, name: str, layout: Layout) -> None:
    """SerialEM's and flattened EPU's files find each other by their stems, dots in names included."""
    found = where(path)
    assert (found.session_folder, found.exposure_name, found.layout) == (folder, name, layout)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gain.mrc", FileKind.GAIN),
        ("20250108_K3-Gain_x2.tiff", FileKind.GAIN),
        ("SuperRef_00000_Aug11.mrc", FileKind.GAIN),
        ("CountRef_1.tif", FileKind.GAIN),
        ("EER_GainReference.gain", FileKind.GAIN),
        ("anything.dm4", FileKind.GAIN),
        ("again_001.tif", FileKind.MOVIE),
        ("Bargain_001.tif", FileKind.MOVIE),
        ("defects_00000.txt", FileKind.DEFECTS),
        ("K3_defects.tif", FileKind.DEFECTS),
        ("defectives_1.tif", FileKind.MOVIE),
        ("again_gain.mdoc", FileKind.METADATA),
        ("notes.txt", FileKind.OTHER),
        ("noextension", FileKind.OTHER),
        (".mrc", FileKind.OTHER),
    ],
)
def test_references_are_known_by_their_names(name: str, kind: FileKind) -> None:
    """Gain and defect files are no exposures; a sample called "again" is no gain."""
    found = where(f"s/{name}")
    assert found.kind is kind
    if kind in (FileKind.GAIN, FileKind.DEFECTS, FileKind.OTHER):
        assert found.exposure_name is None


def test_a_png_may_be_a_micrograph_only_directly_in_a_plain_session() -> None:
    """Elsewhere pictures are previews; JPEGs always are."""
    assert where("s/x.png").kind is FileKind.MICROGRAPH
    assert where("x.png").kind is FileKind.MICROGRAPH
    assert where("s/sub/x.png").kind is FileKind.PREVIEW
    assert where("s/x.jpg").kind is FileKind.PREVIEW
    assert where(f"{DATA}/{STEM}.png").kind is FileKind.PREVIEW


def test_one_visits_sessions_and_discs_do_not_mix() -> None:
    """Two sessions in a visit's folder, each with several discs: equal names are exposures of their own."""
    seen = set()
    for session in ("morning", "evening"):
        for disc in ("Images-Disc1", "Images-Disc2"):
            found = where(f"visit/{session}/{disc}/GridSquare_12/Data/{STEM}_fractions.tiff")
            assert (found.session_folder, found.grid_square) == (f"visit/{session}", "12")
            seen.add((found.session_folder, found.exposure_name))
    assert len(seen) == 4


IMAGE = "19jan31a_grid1_00005gr_00003sq_v02_00001hl_00002en"


@pytest.mark.parametrize(
    ("name", "kind", "exposure", "square", "hole"),
    [
        (f"{IMAGE}.frames.tif", FileKind.MOVIE, IMAGE, "grid1_00005gr_00003sq", "00001hl"),
        (f"{IMAGE}.frames.mrc", FileKind.MOVIE, IMAGE, "grid1_00005gr_00003sq", "00001hl"),
        (f"{IMAGE}.frames.eer", FileKind.MOVIE, IMAGE, "grid1_00005gr_00003sq", "00001hl"),
        (f"{IMAGE}.mrc", FileKind.MICROGRAPH, IMAGE, "grid1_00005gr_00003sq", "00001hl"),
        (f"{IMAGE}-a-DW.mrc", FileKind.PREVIEW, None, "grid1_00005gr_00003sq", "00001hl"),
        ("19jan31a_grid1_00005gr_00003sq.mrc", FileKind.PREVIEW, None, "grid1_00005gr_00003sq", None),
        ("19jan31a_grid1_00005gr.mrc", FileKind.PREVIEW, None, None, None),
        ("19jan31a_00012en.mrc", FileKind.MICROGRAPH, "19jan31a_00012en", None, None),
        ("references/19jan31a_31125959_01_7676x7420_norm_0.mrc", FileKind.GAIN, None, None, None),
        ("references/19jan31a_31125959_01_7676x7420_dark_0.mrc", FileKind.OTHER, None, None, None),
        ("references/reference_list.txt", FileKind.OTHER, None, None, None),
    ],
)
@pytest.mark.parametrize("above", ["", "anna/", "data/anna/"])
def test_leginons_folders_are_known(
    above: str, name: str, kind: FileKind, exposure: str | None, square: str | None, hole: str | None
) -> None:
    """The folder above `rawdata` is the session; frames and image are one exposure; overviews are none."""
    found = where(f"{above}19jan31a/rawdata/{name}")
    exposure = None if exposure is None else f"rawdata/{exposure}"
    path = f"rawdata/{name}"
    assert found == Placement(f"{above}19jan31a", Layout.LEGINON, path, kind, exposure, square, hole)


def test_a_folder_called_rawdata_alone_is_not_leginons() -> None:
    """Somebody's own folders stay what they are; a session of another name is Leginon's where its images say so."""
    assert where("visit/rawdata/x.mrc").layout is Layout.PLAIN
    assert where("a/b/rawdata/x.mrc").session_folder == "a"
    assert where("a/special/rawdata/special_00012en.frames.mrc") == Placement(
        "a/special", Layout.LEGINON, "rawdata/special_00012en.frames.mrc", FileKind.MOVIE, "rawdata/special_00012en"
    )
    known = {"a": Layout.PLAIN, "a/special": Layout.LEGINON}
    assert where("a/special/references/x_norm_0.mrc", sessions=known).session_folder == "a/special"
    assert where("19jan31a/references/x_norm_0.mrc").kind is FileKind.GAIN
    announced = {"a/19jan31a/rawdata": Layout.PLAIN}
    assert where("a/19jan31a/rawdata/19jan31a_1.mrc", sessions=announced).session_folder == "a/19jan31a/rawdata"


names = st.text(
    st.characters(blacklist_characters="/\0", max_codepoint=0x2FF) | st.sampled_from("\udcff\n.'\""),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
known_parts = st.sampled_from(
    [
        "Images-Disc1",
        "GridSquare_12",
        "Data",
        "Metadata",
        "Atlas",
        "EpuSession.dm",
        "x.mrc",
        "x.tif.mdoc",
        "gain.mrc",
        "19jan31a",
        "rawdata",
        "references",
        "19jan31a_00001en.frames.mrc",
    ]
)
paths = st.lists(names | known_parts, min_size=1, max_size=6).map("/".join)


@given(paths)
def test_every_path_has_a_place_and_loses_nothing(path: str) -> None:
    """Session's folder and path in it join to the path again, whatever the names are."""
    found = where(path)
    joined = found.path_in_session if found.session_folder == "." else f"{found.session_folder}/{found.path_in_session}"
    assert joined == path
    assert found == where(path)
    if found.exposure_name is not None:
        assert found.path_in_session.startswith(found.exposure_name)


@given(paths, names, names)
def test_equal_names_in_two_folders_are_two_exposures(name: str, one: str, other: str) -> None:
    """An exposure is told by its whole path."""
    assert (exposure_name(f"{one}/{name}") == exposure_name(f"{other}/{name}")) == (one == other)


def test_squares_and_holes_are_listed_without_any_exposure() -> None:
    """From whatever file names them, each once, in the order of their numbers."""
    seen = [
        "Images-Disc1/GridSquare_100/FoilHoles/FoilHole_20_20250108_1.jpg",
        "Images-Disc1/GridSquare_100/FoilHoles/FoilHole_3_20250108_1.xml",
        "Images-Disc1/GridSquare_100/Data/FoilHole_20_Data_1_2_20250108_1.xml",
        "Images-Disc1/GridSquare_9/GridSquare_20250108_151151.jpg",
        "Metadata/GridSquare_55.dm",
        "EpuSession.dm",
    ]
    expected = [GridSquare("9", ()), GridSquare("55", ()), GridSquare("100", ("3", "20"))]
    assert places_seen(seen) == expected
    assert places_seen(reversed(seen)) == expected


@pytest.mark.real_data
def test_the_squares_and_holes_of_a_real_session_are_listed(real_data: Path) -> None:
    """EPU 3.9's own tree."""
    root = real_data / "epu_session/epu-dir-example"
    found = places_seen(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == [
        GridSquare("8999138", ("9015883", "9015889")),
        GridSquare("8999186", ("9028219", "9028276", "9028325")),
    ]


def test_metadata_goes_first_where_several_wait() -> None:
    """So that a movie is not processed before its optics are known."""
    waiting = ["s/a.jpg", "s/a.tif", "s/gain.mrc", "s/a.tif.mdoc"]
    assert sorted(waiting, key=taking_order) == ["s/gain.mrc", "s/a.tif.mdoc", "s/a.tif", "s/a.jpg"]


def test_the_folders_above_a_path_come_outermost_first() -> None:
    """For a file in the root there are none."""
    assert list(folders_above("a/b/c")) == ["a", "a/b"]
    assert list(folders_above("c")) == []
