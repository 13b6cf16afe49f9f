"""An exposure's last step, taken in the driver: what is thought of it, and of the session since.

All that is read is the exposure's own results and a bounded window of the session's verdicts, so that it costs the same
in the ten thousandth exposure; all that is remembered stands in the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from coldchain.catalog import results, verdicts
from coldchain.catalog.engine import Catalog
from coldchain.model.quality import Judged, Thresholds
from coldchain.model.results import Step, StepRun
from coldchain.model.session import Exposure
from coldchain.preprocess.camera import MOST_OTHERS, shared_pattern
from coldchain.preprocess.quality import judge, measures_of
from coldchain.preprocess.trend import WINDOW, examine


class Judge:
    """Gives verdicts and raises alerts."""

    def __init__(self, catalog: Catalog, results_root: Path, thresholds: Thresholds) -> None:
        self._catalog = catalog
        self._results_root = results_root
        self._thresholds = thresholds

    def settle(self, exposure: Exposure, runs: Mapping[Step, StepRun]) -> bool:
        """End the processing of an exposure whose steps are done, `runs`, with its verdict; whether that was done.

        Raises CatalogError.
        """
        window = verdicts.window(self._catalog, exposure.session_id, WINDOW)
        others = [one for one in window if one.exposure_id != exposure.id]
        pattern = next((run.outputs["pattern"] for run in runs.values() if "pattern" in run.outputs), "")
        past = [one.verdict.measures.transmission for one in others]
        measures = measures_of(
            results.newest(self._catalog, exposure.id),
            exposure.metadata,
            is_movie=Step.ALIGN in runs,
            past_transmissions=[value for value in past if value is not None],
        )
        judged = Judged(exposure.id, exposure.metadata.acquired_at, judge(measures, self._thresholds), pattern)
        session = verdicts.in_order([*others, judged])
        share = self._pattern_share(judged, session)
        if share is not None:
            measures = replace(measures, pattern_share=share)
            judged = replace(judged, verdict=judge(measures, self._thresholds))
            session = [judged if one.exposure_id == exposure.id else one for one in session]
        raised, ended = examine(session[-WINDOW:], verdicts.alerts(self._catalog, exposure.session_id))
        if len(others) < len(window):
            # It was computed again, and others have yet to be: that new numbers differ from old ones is no change.
            raised = []
        return verdicts.settle(self._catalog, judged, raised=raised, ended=ended)

    def _pattern_share(self, judged: Judged, session: Sequence[Judged]) -> float | None:
        """What the exposure's camera pattern has in common with those before it, or, of the first ones, after it."""
        if not judged.pattern:
            return None
        place = session.index(judged)
        with_pattern = [one.pattern for one in session[:place] if one.pattern][-MOST_OTHERS:]
        with_pattern += [one.pattern for one in session[place + 1 :] if one.pattern][: MOST_OTHERS - len(with_pattern)]
        return shared_pattern(
            self._results_root / judged.pattern, (self._results_root / pattern for pattern in with_pattern)
        )
