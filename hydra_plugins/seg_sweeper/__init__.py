"""Names seg's sweeper to Hydra, which accepts plugins from this namespace only. Imported at every Hydra start."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from seg.config.content import plain_value


class SegSweeper(Sweeper):
    """Grids and searches as nested runs, see seg.sweep.sweeper."""

    def __init__(self, **settings: object) -> None:
        self.settings: dict[str, Any] = {key: plain_value(value) for key, value in settings.items()}
        for key in ("when", "sampler_options", "pruner_options"):  # null, for Hydra would let nothing into an empty one
            self.settings[key] = self.settings[key] or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what a launcher will need."""
        self.job = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Runs the sweep that the settings and the command line's ``arguments`` describe."""
        from seg.sweep.sweeper import sweep

        sweep(arguments, self.settings, *self.job)
