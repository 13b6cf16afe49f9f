"""`coldchain store retire`, `restore`, `hold`, `release` and `unknown`, on a facility whose copies were really made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from coldchain import config
from coldchain.catalog import files, replicas, sessions
from coldchain.catalog.engine import open_catalog, upgrade
from coldchain.catalog.stores import note_marked
from coldchain.model.files import FileKind, VerificationLevel
from coldchain.model.session import Layout, SessionState
from coldchain.service import open_stores
from coldchain.storage.copies.copying import copy_verified
from coldchain.storage.retention.trash import clearing_alone
from tests.cli.answer import Answer, Typed

_TOML = """
[[instrument]]
name = "scope"
movie_root = "camera"
[[store]]
name = "live"
url = "stores/live"
[[store]]
name = "tape"
tier = "archive"
url = "stores/tape"
[[store]]
name = "drive"
tier = "external"
url = "stores/drive"
[[retire]]
name = "tidy"
from = ["live"]
after_days = 0
warn_days = {warn_days}
grace_days = {grace_days}
levels = ["medium", "server", "cache"]
"""


@dataclass
class Facility:
    """A facility with two closed sessions of two movies each, verified on three stores."""

    folder: Path
    typed: Typed

    def store(self, *words: object) -> Answer:
        """Type a command about stores."""
        return self.typed("store", *words, "--config", self.folder / "facility.toml")

    def names(self, store: str) -> list[str]:
        """The files of a store but its own."""
        root = self.folder / "stores" / store
        found = [Path(folder, name).relative_to(root) for folder, _, names in os.walk(root) for name in names]
        return sorted(str(path) for path in found if path.name != ".coldchain-store")


Make = Callable[..., Facility]


@pytest.fixture
def make(tmp_path: Path, typed: Typed) -> Make:
    """Make a facility."""

    def made(*, warn_days: float = 0, grace_days: float = 7) -> Facility:
        for folder in ("camera", "results", "stores/live", "stores/tape", "stores/drive"):
            (tmp_path / folder).mkdir(parents=True)
        path = tmp_path / "facility.toml"
        path.write_text(_TOML.format(warn_days=warn_days, grace_days=grace_days))
        settings = config.load(path)
        upgrade(settings.catalog.url)
        with closing(open_catalog(settings.catalog.url, settings.facility.site)) as catalog:
            stores = open_stores(catalog, settings)
            for store in stores.values():
                assert store.identity is not None
                store.set_mark(store.identity)
                note_marked(catalog, store.name, store.identity)
            for name in ("visit", "other visit"):
                session = sessions.create(
                    catalog,
                    name=name,
                    instrument_name="scope",
                    source_root=str(tmp_path / "camera"),
                    folder=name,
                    layout=Layout.PLAIN,
                )
                for number in range(2):
                    source = tmp_path / "camera" / name / f"{number}.tiff"
                    source.parent.mkdir(exist_ok=True)
                    source.write_bytes(f"{name} {number}".encode() * 100)
                    file = files.record_arrival(
                        catalog,
                        session_id=session.id,
                        relative_path=source.name,
                        kind=FileKind.MOVIE,
                        size_bytes=source.stat().st_size,
                        modified_ns=source.stat().st_mtime_ns,
                        stores=tuple(stores),
                    )
                    copied = copy_verified(
                        tmp_path / "camera",
                        f"{name}/{source.name}",
                        f"scope/{name}/{source.name}",
                        list(stores.values()),
                    )
                    files.set_digest(catalog, file.id, copied.sha256)
                    for copy in replicas.of_file(catalog, file.id):
                        level = VerificationLevel.MEDIUM
                        replicas.record_copy(
                            catalog, copy.id, state="verified", level=level, sha256=copied.sha256, detail=""
                        )
                sessions.set_state(catalog, session.id, SessionState.CLOSED)
        return Facility(tmp_path, typed)

    return made


WHOLE = [f"scope/{name}/{number}.tiff" for name in ("other visit", "visit") for number in range(2)]


def test_what_would_be_cleared_is_shown_and_not_done(make: Make) -> None:
    """As a table, and as JSON for machines; without --yes nothing is done where nobody can be asked, and it says so."""
    facility = make()
    for words in (("--dry-run",), ("--dry-run", "--yes"), ()):
        shown = facility.store("retire", *words)
        assert shown.status == (0 if words else 1), shown.err
        assert "other visit" in shown.out and "tidy" in shown.out and "retire" in shown.out
        assert facility.names("live") == WHOLE
    told = json.loads(facility.store("retire", "--json", "--session", "visit").out)
    assert told["done"] is None
    [line] = told["plan"]
    assert (line["session"], line["store"], line["rule"], line["action"]) == ("visit", "live", "tidy", "retire")
    assert (line["files"], line["size_bytes"], line["kept"]) == (2, 1400, {})


def test_clearing_restoring_holding_and_releasing(make: Make) -> None:
    """One session is cleared and brought back; it is held then, and goes again only when it is released."""
    facility = make()
    done = facility.store("retire", "--yes", "--session", "visit")
    assert done.status == 0 and "2 files (1.4 kB) were moved to the trash" in done.out
    assert [name for name in facility.names("live") if "trash" in name and "/scope/visit/" in name] != []
    assert len(facility.names("live")) == 4 and facility.names("tape") == WHOLE
    back = facility.store("restore", "visit", "--json")
    assert back.status == 0, back.err
    by_store = {line["store"]: line["restored"]["files"] for line in json.loads(back.out)}
    assert by_store == {"live": 2, "tape": 0, "drive": 0, "source": 0}
    assert facility.names("live") == WHOLE
    held = facility.store("retire", "--yes", "--session", "visit")
    assert held.status == 0 and "it is held" in held.out and facility.names("live") == WHOLE
    assert facility.store("hold", "visit", "--reason", "a [bold] paper").status == 0
    released = facility.store("release", "visit")
    assert released.status == 0 and "a [bold] paper" in released.out
    assert facility.store("release", "visit").status == 1
    assert facility.store("retire", "--yes").status == 0
    assert all(name.startswith(".coldchain-trash/") for name in facility.names("live"))


def test_what_lies_in_the_trash_long_enough_is_removed(make: Make) -> None:
    """It is shown first, and then gone; the other copies are as they were."""
    facility = make(grace_days=0)
    assert facility.store("retire", "--yes").status == 0
    assert "remove for good" in facility.store("retire", "--dry-run").out
    done = facility.store("retire", "--yes")
    assert done.status == 0 and "4 files (4.0 kB) are removed for good" in done.out, done.out
    assert facility.names("live") == [] and facility.names("tape") == WHOLE
    assert "No rule has anything to clear" in facility.store("retire", "--yes").out


def test_a_warning_comes_first(make: Make) -> None:
    """With warn_days the command announces, and clears nothing."""
    facility = make(warn_days=7)
    assert "2 announced" in facility.store("retire", "--yes").out
    shown = facility.store("retire", "--dry-run")
    assert "it is announced" in shown.out and facility.names("live") == WHOLE


def test_a_copy_that_is_not_whole_makes_it_fail(make: Make) -> None:
    """What was due and could not go is said on standard error, with status 1."""
    facility = make()
    (facility.folder / "stores/tape/scope/visit/1.tiff").write_bytes(b"x" * 700)
    done = facility.store("retire", "--yes", "--session", "visit")
    assert done.status == 1 and "1 file stays: a copy elsewhere is not whole any more (1.tiff)" in done.err
    assert "scope/visit/1.tiff" in facility.names("live")


@pytest.mark.parametrize("swapped", ["live", "tape"])
def test_an_empty_disk_in_a_stores_place_stops_everything(make: Make, swapped: str) -> None:
    """A store that does not bear its identity is neither cleared nor relied on; with the right disk it goes on."""
    facility = make()
    place = facility.folder / "stores" / swapped
    right = place.rename(facility.folder / "right")
    place.mkdir()
    facility.store("retire", "--yes")
    assert list(place.iterdir()) == []
    place.rmdir()
    right.rename(place)
    assert facility.names("live") == WHOLE and facility.names("tape") == WHOLE
    assert facility.store("retire", "--yes").status == 0
    assert not set(WHOLE) & set(facility.names("live"))


def test_a_place_that_is_taken_makes_restoring_fail(make: Make) -> None:
    """The file stays in the trash, and what has its place stays as it is."""
    facility = make()
    facility.store("retire", "--yes")
    taken = facility.folder / "stores/live/scope/visit/0.tiff"
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_bytes(b"mine")
    back = facility.store("restore", "visit", "--store", "live")
    assert back.status == 1 and "1 file on live did not come back" in back.err and "(0.tiff)" in back.err
    assert taken.read_bytes() == b"mine"


def test_what_is_gone_from_the_trash_is_named(make: Make) -> None:
    """Somebody has emptied a part of it: the rest comes back, the missing file is named, and the status is 1; so it is
    when nothing is left to come back."""
    facility = make()
    facility.store("retire", "--yes", "--session", "visit")
    [trashed] = [name for name in facility.names("live") if name.startswith(".") and name.endswith("/1.tiff")]
    (facility.folder / "stores/live" / trashed).unlink()
    back = facility.store("restore", "visit", "--store", "live")
    assert back.status == 1 and "1 file (700 B) of visit is back, whole." in back.out
    assert "1 file on live did not come back: it is not in the trash any more (1.tiff)" in back.err
    again = facility.store("restore", "visit", "--store", "live")
    assert again.status == 1 and "Nothing of visit came back" in again.out
    assert "1 file (700 B) was removed from live before" in again.out


def test_nothing_due_is_said_with_what_comes_next(make: Make) -> None:
    """Why the sessions stay, that nothing is due, and which session is the first to go, from which day on."""
    facility = make()
    path = facility.folder / "facility.toml"
    path.write_text(path.read_text().replace("after_days = 0", "after_days = 30"))
    for words in (("--dry-run",), ("--yes",)):
        shown = facility.store("retire", *words)
        assert shown.status == 0 and "2 sessions stay on live: it has been closed for 0.0 of 30 days" in shown.out
        assert "Nothing is due now." in shown.out and "Next: what may go of session" in shown.out
        assert "0 files" not in shown.out


def test_the_plan_counts_what_another_rule_clears(make: Make) -> None:
    """Two rules for two of three stores, each of which wants two other copies: the plan shows one of them going, and
    that is what is done."""
    facility = make()
    path = facility.folder / "facility.toml"
    rule = path.read_text().partition("[[retire]]")[2]
    path.write_text(
        path.read_text() + "\n[[retire]]" + rule.replace("tidy", "tape too").replace('["live"]', '["tape"]')
    )
    shown = facility.store("retire", "--session", "visit", "--json", "--dry-run")
    told = {line["rule"]: (line["action"], line["files"], line["kept"]) for line in json.loads(shown.out)["plan"]}
    assert told["tidy"] == ("retire", 2, {})
    assert told["tape too"] == ("keep", 0, {"of 2 verified copies elsewhere it has 1": 2})
    named = facility.store("retire", "--session", "visit", "--dry-run").out
    assert "2 files stay on tape: of 2 verified copies elsewhere it has 1 (0.tiff, 1.tiff)" in named
    facility.store("retire", "--session", "visit", "--yes")
    assert [name for name in facility.names("tape") if "/visit/" in name] == WHOLE[2:]


def test_a_store_that_is_away_is_said_plainly_when_it_is_to_be_verified(make: Make) -> None:
    """Its folder is gone, or an empty one lies there: nothing was read, and what to do."""
    facility = make()
    place = facility.folder / "stores/tape"
    right = place.rename(facility.folder / "right")
    gone = facility.store("verify", "tape")
    assert gone.status == 1 and "store 'tape' is not there" in gone.err and "nothing was read" in gone.err
    place.mkdir()
    other = facility.store("verify", "tape")
    assert other.status == 1 and "bears no identity" in other.err
    place.rmdir()
    right.rename(place)
    whole = facility.store("verify", "tape", "--session", "visit")
    assert whole.status == 0 and "2 copies are whole, 0 are not; 1.4 kB read." in whole.out


def test_stores_on_one_device_are_told(make: Make) -> None:
    """They are listed as such, and cleared all the same: a demonstration has but one disk."""
    facility = make()
    assert "The stores drive, live and tape lie on one device" in facility.store("list").out


def test_unknown_files_are_listed(make: Make) -> None:
    """With their sizes, for people and for machines; they stay where they are."""
    facility = make()
    assert json.loads(facility.store("unknown", "tape", "--json").out) == []
    for name in ("scope/visit/[bold]x", "y\n"):
        (facility.folder / "stores/tape" / name).write_bytes(b"12345")
    listed = json.loads(facility.store("unknown", "tape", "--json").out)
    assert sorted((line["stored_as"], line["size_bytes"]) for line in listed) == [
        ("scope/visit/[bold]x", 5),
        ("y\n", 5),
    ]
    shown = facility.store("unknown", "tape").out
    assert "[bold]x" in shown and "y\\n" in shown and "2 files (10 B) on tape" in shown
    assert len(facility.names("tape")) == 6


def test_wrong_words_are_answered(make: Make) -> None:
    """Unknown rules, stores and sessions, an empty reason: each is named with what there is."""
    facility = make()
    assert facility.store("retire", "--rule", "tidi").status == 2
    assert "live, tape, drive" in facility.store("retire", "--store", "lives").err
    assert facility.store("unknown", "source").status == 2
    assert facility.store("restore", "nobody").status == 1
    assert facility.store("hold", "visit", "--reason", " ").status == 2
    settings = config.load(facility.folder / "facility.toml")
    with (
        closing(open_catalog(settings.catalog.url, settings.facility.site)) as catalog,
        clearing_alone(catalog, facility.folder / ".coldchain-retire.lock"),
    ):
        assert "another process" in facility.store("retire", "--yes").err
        assert facility.store("retire", "--dry-run").status == 0
