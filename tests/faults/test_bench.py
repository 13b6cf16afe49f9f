"""The bench itself: it finds what it is there to find, and its faults bite."""

from __future__ import annotations

import pytest

from tests.faults import bench as bench_module
from tests.faults.bench import SMALL, Bench


def test_a_facility_without_a_fault_comes_to_its_end(bench: Bench) -> None:
    """Two stores get every copy, small and large."""
    for name in ("raid", "archive"):
        bench.add_folder(name)
    bench.arrive_all("small")
    bench.arrive_all("big")
    bench.start()
    bench.healed()


@pytest.mark.parametrize("at", [0, SMALL // 2, SMALL - 1])
def test_a_false_copy_is_found(bench: Bench, at: int) -> None:
    """One byte of a copy that is called verified is another: the bench does not let that pass."""
    bench.add_folder("raid")
    file = bench.arrive("movie.tiff")
    bench.start()
    bench.healed()
    with bench.where("raid", file.relative_path).open("r+b") as copy:
        copy.seek(at)
        was = copy.read(1)
        copy.seek(at)
        copy.write(bytes([was[0] ^ 1]))
    with pytest.raises(AssertionError, match="is not what verified means"):
        bench.assert_sound()


def test_a_loss_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is not what it was, and a planted file that is gone, are each found."""
    monkeypatch.setattr(bench_module, "DEADLINE_SECONDS", 2.0)  # nothing brings them back
    bench.add_folder("raid")
    bench.arrive("movie.tiff")
    planted = bench.plant("raid", "other.tiff", b"content")
    bench.assert_sound()
    planted.unlink()
    with pytest.raises(AssertionError, match="are gone"):
        bench.assert_sound()
    planted.write_bytes(b"content")
    (bench.camera / "visit" / "movie.tiff").write_bytes(b"")
    with pytest.raises(AssertionError, match="is not what it was"):
        bench.assert_sound()
