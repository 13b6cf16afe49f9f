"""One mdoc of many movies: each movie gets what its own section says, in whatever order they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.catalog import exposures, files, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.frame_sets import choose, of_many, stem_of
from coldchain.collect.intake import Intake
from coldchain.formats.mdoc import read_frame_sets
from coldchain.model.files import FileKind
from coldchain.model.policy import everywhere
from coldchain.model.session import Exposure, ExposureState, Layout
from tests.collect.camera_folder import write_mdoc, write_movie

ANGLES = (0.0, 3.0, -3.0, 6.0)


class Taking:
    """An intake, and short ways to ask what it did."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        self.catalog, self.root = catalog, root
        self.restart()

    def restart(self) -> None:
        """Forget all that is not in the catalog."""
        self.intake = Intake(self.catalog, instrument_name="krios", source_root=self.root, copies=everywhere(()))
        self.intake.resume()

    def take(self, *paths: Path) -> None:
        """Take files as they stand now."""
        for path in paths:
            status = path.lstat()
            relative = str(path.relative_to(self.root))
            assert self.intake.take(Examination(relative, (status.st_size, status.st_mtime_ns), False)) is Verdict.TAKEN

    def exposures(self) -> dict[str, Exposure]:
        """The session's exposures by name."""
        (session,) = sessions.list_all(self.catalog)
        assert session.layout is Layout.SERIALEM
        return {found.name: found for found in exposures.page(self.catalog, session.id, limit=100, before=None)}


@pytest.fixture
def taking(catalog: Catalog, root: Path) -> Taking:
    """An intake on an empty root."""
    return Taking(catalog, root)


def section(kind: str, number: int, movie: str, angle: float, *, gain: str = "") -> str:
    """One section of an mdoc."""
    lines = [f"[{kind} = {number}]", f"TiltAngle = {angle}", "ExposureDose = 3.5", "PixelSpacing = 1.35", "Binning = 1"]
    lines += [f"SubFramePath = D:\\DATA\\frames\\{movie}"] if movie else []
    return "\n".join([*lines, "NumSubFrames = 3", f"GainReference = {gain}" if gain else "", ""])


def series(path: Path, count: int, *, kind: str = "ZValue", gain: str = "") -> Path:
    """A tilt series' mdoc with its first sections."""
    text = "T = SerialEM: Test\nVoltage = 300\nImageFile = TS_01.mrc\n\n"
    text += "\n".join(section(kind, n, f"TS_01_{n:03}.mrc", ANGLES[n], gain=gain) for n in range(count))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["ZValue", "FrameSet"])
@pytest.mark.parametrize("order", ["mdoc first", "movies first", "between, with a restart"])
def test_each_movie_gets_its_own_section(taking: Taking, kind: str, order: str) -> None:
    """Its tilt, dose and pixel size; and the mdoc itself makes no exposure."""
    mdoc = series(taking.root / "visit/TS_01.mrc.mdoc", 4, kind=kind)
    movies = [write_movie(taking.root / f"visit/frames/TS_01_{n:03}.mrc") for n in range(4)]
    if order == "mdoc first":
        taking.take(mdoc, *movies)
    elif order == "movies first":
        taking.take(*movies, mdoc)
    else:
        taking.take(*movies[:2])
        taking.restart()
        taking.take(mdoc)
        taking.restart()
        taking.take(*movies[2:])
    found = taking.exposures()
    assert set(found) == {f"frames/TS_01_{n:03}" for n in range(4)}
    for number, angle in enumerate(ANGLES):
        exposure = found[f"frames/TS_01_{number:03}"]
        metadata = exposure.metadata
        assert exposure.state is ExposureState.READY
        assert (metadata.tilt_degrees, metadata.optics.dose_e_per_square_angstrom) == (angle, 3.5)
        assert (metadata.optics.pixel_size_angstrom, metadata.optics.voltage_kilovolt) == (1.35, 300)


def test_an_mdoc_that_is_written_on_is_taken_again(taking: Taking) -> None:
    """SerialEM adds a section with every image; what it corrects later counts, too."""
    path = taking.root / "visit/TS_01.mrc.mdoc"
    for count in range(1, 5):
        taking.take(series(path, count))
        taking.take(write_movie(taking.root / f"visit/TS_01_{count - 1:03}.mrc"))
        assert len(taking.exposures()) == count
    assert [taking.exposures()[f"TS_01_{n:03}"].metadata.tilt_degrees for n in range(4)] == list(ANGLES)
    path.write_text(path.read_text().replace("ExposureDose = 3.5", "ExposureDose = 3.25"))
    taking.take(path)
    doses = {found.metadata.optics.dose_e_per_square_angstrom for found in taking.exposures().values()}
    assert doses == {3.25}


@pytest.mark.parametrize("own_first", [False, True])
def test_a_movies_own_mdoc_counts_over_one_of_many(taking: Taking, own_first: bool) -> None:
    """Whichever comes first."""
    many = series(taking.root / "visit/TS_01.mrc.mdoc", 1)
    own = write_mdoc(taking.root / "visit/TS_01_000.mrc.mdoc")
    taking.take(write_movie(taking.root / "visit/TS_01_000.mrc"))
    taking.take(*((own, many) if own_first else (many, own)))
    metadata = taking.exposures()["TS_01_000"].metadata
    assert (metadata.optics.dose_e_per_square_angstrom, metadata.tilt_degrees) == (40, 0.0)


def test_the_gain_that_a_section_names_is_waited_for(taking: Taking) -> None:
    """As with a movie's own mdoc."""
    taking.take(series(taking.root / "visit/TS_01.mrc.mdoc", 2, gain="SuperRef_1.mrc"))
    taking.take(write_movie(taking.root / "visit/TS_01_000.mrc"))
    assert taking.exposures()["TS_01_000"].metadata.optics.gain == "SuperRef_1.mrc"


def test_the_stack_of_a_tilt_series_is_no_movie(taking: Taking) -> None:
    """Its images are not frames of one exposure: it is kept, and not aligned."""
    mdoc = series(taking.root / "visit/TS_01.mrc.mdoc", 3)
    taking.take(mdoc, write_movie(taking.root / "visit/TS_01.mrc"))
    assert taking.exposures() == {}
    (session,) = sessions.list_all(taking.catalog)
    kinds = {file.relative_path: file.kind for file in files.of_session(taking.catalog, session.id, limit=9)}
    assert kinds == {"TS_01.mrc": FileKind.OTHER, "TS_01.mrc.mdoc": FileKind.METADATA}


def test_a_stack_that_was_taken_for_a_movie_is_corrected(taking: Taking) -> None:
    """Before its mdoc was there it looked like one; now it is quarantined and says why, and waits for nothing."""
    taking.take(write_movie(taking.root / "visit/TS_01.mrc", frames=1))
    mdoc = series(taking.root / "visit/TS_01.mrc.mdoc", 2)
    taking.take(mdoc, write_movie(taking.root / "visit/TS_01.mrc", frames=2))
    exposure = taking.exposures()["TS_01"]
    assert exposure.state is ExposureState.QUARANTINED
    assert "a stack of images" in exposure.reason


@pytest.mark.parametrize("mdoc_first", [False, True])
def test_an_mdoc_of_a_single_image_describes_it(taking: Taking, mdoc_first: bool) -> None:
    """One ZValue that names no movie is about the image of the mdoc's name, and waits for it without an exposure."""
    mdoc, image = taking.root / "visit/m1.mrc.mdoc", write_movie(taking.root / "visit/m1.mrc", frames=1)
    mdoc.write_text("Voltage = 200\n" + section("ZValue", 0, "", 12.0))
    taking.take(*((mdoc, image) if mdoc_first else (image, mdoc)))
    assert taking.exposures()["m1"].metadata.tilt_degrees == 12.0
    assert taking.exposures()["m1"].metadata.optics.voltage_kilovolt == 200


def test_a_section_that_cannot_be_is_said_and_the_others_count(taking: Taking, catalog: Catalog) -> None:
    """One bad number spoils one movie's metadata."""
    path = series(taking.root / "visit/TS_01.mrc.mdoc", 3)
    path.write_text(path.read_text().replace("TiltAngle = 3.0", "TiltAngle = up"))
    taking.take(path, *(write_movie(taking.root / f"visit/TS_01_{n:03}.mrc") for n in range(3)))
    tilts = [taking.exposures()[f"TS_01_{n:03}"].metadata.tilt_degrees for n in range(3)]
    assert tilts == [0.0, None, -3.0]


@pytest.mark.parametrize(
    ("movie", "described_in", "names", "meant"),
    [
        ("D:/x/frames/m.tif", "TS.mdoc", [], None),
        ("D:/x/frames/m.tif", "TS.mdoc", ["other/m"], "other/m"),
        ("D:/x/frames/m.tif", "TS.mdoc", ["a/m", "a/Frames/m"], "a/Frames/m"),
        ("D:/x/frames/m.tif", "TS.mdoc", ["a/frames/m", "x/frames/m"], "x/frames/m"),
        ("D:/q/m.tif", "a/TS.mdoc", ["b/m", "a/m"], "a/m"),
        ("D:/q/m.tif", "c/TS.mdoc", ["b/m", "a/m"], None),
    ],
)
def test_of_several_movies_of_a_name_the_nearest_is_meant(
    movie: str, described_in: str, names: list[str], meant: str | None
) -> None:
    """By the folders that agree, then by what lies beside the mdoc; a toss is not decided."""
    assert choose(movie, described_in, names) == meant
    assert choose(movie, described_in, names[::-1]) == meant


@pytest.mark.real_data
def test_real_mdocs_are_of_one_movie_or_of_many(real_data: Path) -> None:
    """A frame set's mdoc, renamed or of a continuous series, is of one; a tilt series' names each movie."""
    many = {path.name: of_many(read_frame_sets(path), path.name) for path in (real_data / "serialem").glob("*.mdoc")}
    found = many.pop("tilt_series.mdoc")
    assert found is not None
    assert set(many.values()) == {None}
    assert len(found) > 30
    assert found[1].metadata.tilt_degrees == pytest.approx(3.00113)
    assert stem_of(found[1].movie) == "TS_01_001_3.0"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["FrameSet", "ZValue", "T", "Other"]), st.sampled_from(["a.tif", "a.mrc", "b\\c.tif", ""])
        ),
        max_size=6,
    )
)
def test_whatever_sections_there_are_every_movie_is_described_once(
    tmp_path_factory: pytest.TempPathFactory, given_sections: list[tuple[str, str]]
) -> None:
    """No movie twice, none that is not named, none of a kind that does not count."""
    path = tmp_path_factory.getbasetemp() / "many.mdoc"
    text = "\n".join(section(kind, n, movie, 1.0) for n, (kind, movie) in enumerate(given_sections))
    path.write_text(f"Voltage = 300\n{text}\n")
    kinds = [kind for kind, _ in given_sections]
    if not {"FrameSet", "ZValue"} & set(kinds):
        return
    counted = "FrameSet" if "FrameSet" in kinds else "ZValue"
    mdoc = read_frame_sets(path)
    named = [found.movie.rpartition("frames/")[2] for found in mdoc.frame_sets if found.movie]
    assert len(named) == len(set(named))
    assert {movie.replace("\\", "/") for kind, movie in given_sections if kind == counted and movie} <= set(named)
