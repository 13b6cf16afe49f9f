"""What a step wrote is copied where a policy says so."""

from __future__ import annotations

import time
from pathlib import Path

from coldchain.catalog import engine, exposures, files, replicas, sessions, steps
from coldchain.model.files import FileKind, ReplicaState
from coldchain.model.policy import CopyPlan, CopyPolicy, Place, Tier, everywhere
from coldchain.model.results import Step
from coldchain.model.session import Layout
from coldchain.preprocess.produced import produced_files
from coldchain.storage.copies.copier import Copier
from coldchain.storage.posix.store import PosixStore

OUTPUTS = {"micrograph": "micrograph.mrc", "also": "micrograph.mrc", "motion": "motion.json"}
PLAN = CopyPlan(
    (Place("raid", Tier.LIVE), Place("cloud", Tier.CLOUD)),
    (CopyPolicy("sums", frozenset({FileKind.SUM}), {"cloud": 1}),),
)


def results(root: Path) -> Path:
    """The folder of a step that has written its outputs."""
    folder = root / "krios" / "visit" / "a" / "b" / "align-12"
    folder.mkdir(parents=True)
    for name in OUTPUTS.values():
        (folder / name).write_bytes(name.encode())
    return folder


def test_only_what_a_policy_names_is_copied(tmp_path: Path) -> None:
    """Sums go where sums are wanted, once; other results stay; without policies nothing of them is copied."""
    folder = results(tmp_path)

    def produced(plan: CopyPlan) -> list[tuple[str, FileKind, tuple[str, ...]]]:
        given = produced_files(
            Step.ALIGN, OUTPUTS, folder=folder, root=tmp_path, session_folder="krios/visit", copies=plan
        )
        return [(file.relative_path, file.kind, file.stores) for file in given]

    assert produced(PLAN) == [("a/b/align-12/micrograph.mrc", FileKind.SUM, ("cloud",))]
    assert produced(everywhere(["raid"])) == []


def test_a_sum_is_journalled_with_its_step_and_copied(tmp_path: Path) -> None:
    """The end of a step and the wish for a copy of its sum are one transaction; the copy lies beside the movie's."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    engine.upgrade(url)
    catalog = engine.open_catalog(url, "here")
    session = sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root=str(tmp_path / "camera"),
        folder="visit",
        layout=Layout.PLAIN,
    )
    exposure = exposures.ensure(catalog, session.id, "a/b")
    run = steps.begin(catalog, exposure.id, Step.ALIGN, key="12", parameters={})
    root = tmp_path / "results"
    produced = produced_files(
        Step.ALIGN, OUTPUTS, folder=results(root), root=root, session_folder="krios/visit", copies=PLAN
    )
    steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=None, produced=produced)
    (file,) = files.of_session(catalog, session.id, limit=9)
    assert (file.kind, file.exposure_id) == (FileKind.SUM, exposure.id)
    (tmp_path / "cloud").mkdir()
    copier = Copier(catalog, {"cloud": PosixStore("cloud", tmp_path / "cloud")})
    copier.start()
    deadline = time.monotonic() + 60
    while not copier.idle():
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.01)
    copier.stop()
    (replica,) = replicas.of_file(catalog, file.id)
    assert (replica.state, replica.store) == (ReplicaState.VERIFIED, "cloud")
    assert (tmp_path / "cloud/krios/visit/a/b/align-12/micrograph.mrc").read_bytes() == b"micrograph.mrc"
    catalog.close()
