"""Whether Optuna would prune a running trial, in whichever process it runs."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from seg.sweep.goal import make_pruner
from seg.sweep.storage import close_storage, open_storage


class Judge:
    """Receives the epochs of a trial, in whichever process it runs, and decides whether it should stop.

    Args:
        name: of the sweep.
        address: of its storage.
        trial_id: of the trial in the storage.
        pruner: of the sweep, as are its ``options``.
    """

    def __init__(self, name: str, address: str | Path, trial_id: int, pruner: str, options: Mapping[str, Any]) -> None:
        self._storage = open_storage(address)
        study = optuna.load_study(
            study_name=name,
            storage=self._storage,
            sampler=optuna.samplers.RandomSampler(),  # nothing is drawn
            pruner=make_pruner(pruner, options),
        )
        self._trial = optuna.Trial(study, trial_id)

    def stops(self, epoch: int, value: float) -> bool:
        """Keeps the value of the objective, a finite number, at an epoch; whether others were better by then."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a resumed run may report an epoch once more
                self._trial.report(value, epoch)
            return bool(self._trial.should_prune())
        except UpdateFinishedTrialError:
            return True  # another machine took this one for dead and gave the trial up

    def close(self) -> None:
        """Lets go of the storage."""
        close_storage(self._storage)
