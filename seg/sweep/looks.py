"""Looks at a study whose seeds are added until it is decided: whether it needs another one, and for which arms."""

import logging
import threading
import time
from dataclasses import fields
from typing import Any

from seg.config.content import WITHOUT_EFFECT
from seg.errors import ConfigError, DataError, InputError, counted
from seg.pages.study import look_at
from seg.study.looks import why
from seg.study.question import Asked, Seeds
from seg.sweep.definition import Sweep
from seg.sweep.search import Search

log = logging.getLogger(__name__)
_PAUSE = 5.0  # seconds between two questions for scores
_PATIENCE = 600.0  # seconds that the scores of another machine may be on their way


class NextSeed:
    """Adds the trials of one more seed once all trials so far have finished, where comparisons are still open.

    What is added is decided by the scores alone, so every process decides the same; the first one's decision is kept in
    the sweep's storage, and holds from then on.

    Args:
        sweep: any sweep; nothing is added to one that is no such study.
        search: its trials.
    """

    def __init__(self, sweep: Sweep, search: Search) -> None:
        self.sweep, self.search = sweep, search
        self._lock = threading.Lock()
        self._waiting_since: float | None = None

    def more(self) -> bool:
        """Whether there may be something to run again, now that nothing is left.

        Raises:
            DataError: the scores of a finished trial do not come.
        """
        if self.sweep.study is None or self.sweep.study.until is None:
            return False
        with self._lock:
            batches = self.search.batches
            if not self.search.over():  # another thread or process has added some
                return True
            frame = self.search.frame()
            lacking = ~frame["retried"] & frame["state"].isin(["failed", "pruned"])
            if lacking.any() or (batches and not batches[-1]["trials"]):
                return False
            return self._decide(len(batches), self.sweep.study.until)

    def _decide(self, place: int, seeds: Seeds) -> bool:
        try:
            looks = look_at(asked_by(self.sweep), self.sweep.outputs, self.sweep.cfg.tracking.uri)
        except ConfigError as error:
            return self._wait(error)
        if len(looks) <= place:
            return self._wait(
                DataError(
                    f"All trials of {seeds.start + place} seeds are finished, but not all of their scores are here. "
                    "Several machines need a record that all of them read: tracking.uri, or one folder paths.outputs."
                )
            )
        self._waiting_since, look = None, looks[place]
        assert self.sweep.study is not None
        arms = [self.sweep.study.arms[arm].name for arm in look.wanted]
        seed = str(seeds.start + place)
        trials = [run for run in self.sweep.starts if run["seed"] == seed and run["arm"] in arms]
        done = f"{sum(map(bool, look.decided))} of {counted(len(look.decided), 'comparison')} decided"
        then = f"one more seed for {', '.join(arms)}" if arms else f"no more seeds, for {why(look, seeds)}"
        log.info("after %s seeds %s (level %.4f); %s", seed, done, look.level, then)
        self.search.add(place, trials, look.why)
        return True

    def _wait(self, fault: InputError) -> bool:
        """A moment; raises ``fault`` where it has lasted too long."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > _PATIENCE:
            raise fault
        time.sleep(_PAUSE)
        return True


def asked_by(sweep: Sweep) -> Asked:
    """What a study asks, as its report needs it."""
    study = sweep.study
    assert study is not None
    kept = {field.name for field in fields(Asked)}
    same = {key: value for key, value in (vars(sweep) | vars(study)).items() if key in kept}
    levels = {factor: {arm.name: arm.levels[n] for arm in study.arms} for n, factor in enumerate(study.factors)}
    own: dict[str, Any] = {"sweep": sweep.name, "runs": sweep.total, "arms": tuple(arm.name for arm in study.arms)}
    typed = {k: v for k, v in sweep.space.typed.items() if not k.startswith((*WITHOUT_EFFECT, "experiments"))}
    return Asked(**same | own | {"factors": levels, "base": study.base | typed})


def ended_by(sweep: Sweep, search: Search) -> dict[str, object]:
    """Tags of the sweep's own run: after how many seeds the study ended, why, and how many trainings that saved."""
    if sweep.study is None or sweep.study.until is None or not (batches := search.batches):
        return {}
    entered = len(sweep.study.first(sweep.starts)) + sum(len(batch["trials"]) for batch in batches)
    seeds = sweep.study.until.start + sum(bool(batch["trials"]) for batch in batches)
    ended = not batches[-1]["trials"]
    return {"seeds.trained": seeds} | (
        {"seeds.ended": batches[-1]["why"], "seeds.trainings_saved": sweep.total - entered} if ended else {}
    )
