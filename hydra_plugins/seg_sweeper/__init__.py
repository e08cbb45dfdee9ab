"""Names seg's sweeper to Hydra, which accepts plugins from this namespace only. Imported at every Hydra start."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SegSweeper(Sweeper):
    """Grids and searches as nested runs, see seg.sweep.sweeper."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what a launcher will need."""
        self.job = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the sweep that the settings and the command line's ``arguments`` describe."""
        from seg.sweep.sweeper import sweep

        return sweep(arguments, self.settings, **self.job)
