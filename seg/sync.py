"""``python -m seg.sync run=<id>``: sends what MLflow did not get while it was away."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from seg.cli import entry
from seg.errors import ConfigError
from seg.rundir import RunFolders, State, claimed, find, read_state
from seg.unsent import Journal

if TYPE_CHECKING:
    from seg.tracking import Mlflow


def main(cfg: DictConfig) -> None:
    """Sends every kept report of the runs that ``run`` names, oldest first.

    Raises:
        ConfigError: the run is unknown or still going, or MLflow does not answer; nothing kept is lost by it.
    """
    outputs = Path(cfg.paths.outputs)
    runs = claimed(outputs) if cfg.run == "all" else [find(outputs, str(cfg.run))]
    waiting = [(run, state) for run in runs if Journal(run.run).first(1) and (state := read_state(run.run))]
    going = [(run, state) for run, state in waiting if state.true_status == "RUNNING"]
    if going and cfg.run != "all":
        raise ConfigError(_why_not_yet(*going[0]))
    for run, state in going:
        print(_why_not_yet(run, state))
    for run, state in waiting:
        if (run, state) not in going:
            mlflow = server(state.uri, cfg.tracking.uri, outputs)
            print(f"run {run.short} ({state.name}): sent {mlflow.catch_up(run)} reports to {mlflow.name}")
    if not waiting:
        print(f"Nothing is waiting to be sent under {outputs / 'runs'}.")


def server(noted: str | None, uri: str | None, outputs: Path) -> "Mlflow":
    """Opens the MLflow that a run was recorded in.

    Args:
        noted: its address as the run's folder has it.
        uri: its address with the password; None: as noted.
        outputs: holds the run's folder.

    Raises:
        ConfigError: the password is needed, there is no database, or no answer.
    """
    from seg.tracking import Mlflow

    return Mlflow(uri or noted, outputs, create=False)


def _why_not_yet(run: RunFolders, state: State) -> str:
    process = state.process
    return (
        f"Run {run.short} is still going, as process {process.pid} of {process.host}, and sends by itself. If that "
        f"machine is gone for ever, set the status in {run.run / 'state.json'} to KILLED."
    )


run = entry("sync", main)

if __name__ == "__main__":
    run()
