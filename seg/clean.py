"""``python -m seg.clean``: removes predictions, after showing what it would remove and asking.

Masks and pictures of a run go; its own folder with checkpoint and scores stays, except with ``orphans=true``. A folder
is removed only where it is directly under ``<outputs>/predictions`` or ``<outputs>/runs``, names its owner, and belongs
to no run that is still running. No link is followed.
"""

import sys
import time
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from seg.config.command import verb
from seg.config.content import number
from seg.errors import ConfigError
from seg.records.folder import OWNER, RunFolder, claimed, find, owner
from seg.records.mlflow import Mlflow
from seg.records.predictions import empty
from seg.records.state import State, read_state


def main(cfg: DictConfig) -> None:
    """Removes what ``keep``, ``run`` or ``orphans`` selects, once the user agrees.

    Raises:
        ConfigError: not exactly one of the three, an unknown run, or no terminal to confirm at.
    """
    folders = selected(cfg, Path(cfg.paths.outputs))
    chosen = [folder for folder in folders if not running(folder)]
    for folder in filter(running, folders):
        print(f"{folder} is left alone: its run is still running.")
    print("\n".join(map(described, chosen)) or "Nothing to remove.")
    if chosen and (cfg.yes or confirmed(chosen)):
        removed = [folder for folder in chosen if not running(folder)]  # nor resumed while the user thought it over
        for folder in removed:
            empty(folder)
            (folder / OWNER).unlink()  # last: a half-removed folder still names its run
            folder.rmdir()
        print(f"Folders removed: {len(removed)}.")


def selected(cfg: DictConfig, outputs: Path) -> list[Path]:
    """The folders that the user asked to remove, whether or not their run is still running."""
    given = [key for key in ("keep", "run", "orphans") if cfg[key] is not None and cfg[key] is not False]
    if len(given) != 1:
        options = "keep=3, run=a1b2c3d4 or orphans=true"
        raise ConfigError(f"Say what to remove by one of {options}; given: {', '.join(given) or 'none'}.")
    runs, predictions = (_listed(outputs, kind) for kind in ("runs", "predictions"))
    if cfg.run is not None:
        meant = find(outputs, str(cfg.run)).run_id
        return [folders.predictions for folders in predictions if folders.run_id == meant]
    if cfg.orphans:
        return orphans(runs, predictions, cfg.tracking.uri, outputs)
    keep = number(cfg.keep)
    if not isinstance(keep, int) or keep < 0:
        raise ConfigError(f"keep is {cfg.keep!r}; it must be a whole number, 0 or more.")
    kept = [run.predictions for run in predictions if any(path.name != OWNER for path in run.predictions.iterdir())]
    newest = sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in newest if running(path)] + [path for path in newest if not running(path)][keep:]


def _listed(outputs: Path, kind: str) -> list[RunFolder]:
    if (outputs / kind).is_symlink():
        raise ConfigError(f"{outputs / kind} is a link, and links are not followed. Set paths.outputs to its target.")
    return claimed(outputs, kind)


def orphans(runs: list[RunFolder], predictions: list[RunFolder], uri: str | None, outputs: Path) -> list[Path]:
    """Predictions whose run folder is gone, and both folders of runs that were deleted in MLflow."""
    known = {run.run_id for run in runs}
    gone = [folders.predictions for folders in predictions if folders.run_id not in known and not folders.run.exists()]
    mlflow_at = cache(lambda noted: Mlflow(uri or noted, outputs))
    for run in runs:
        state = read_state(run.run)
        if state and state.kind == "mlflow":
            mlflow = mlflow_at(state.uri)
            stage = mlflow.stage(run.run_id)
            if stage == "deleted":
                gone += [path for path in (run.predictions, run.run) if owner(path) == run.run_id]
            elif stage == "unknown":
                print(f"{run.run} is left alone: {mlflow.name} does not know its run. Was it recorded elsewhere?")
    return gone


def running(folder: Path) -> bool:
    """Whether the run that owns ``folder`` may still be writing."""
    state = _state(folder)
    return state is not None and state.true_status == "RUNNING"


def described(folder: Path) -> str:
    """One line: path, size, age, and what is known about its run."""
    state = _state(folder)
    known = f"{state.name}, {state.true_status}" if state else "its run is gone"
    days = (time.time() - folder.stat().st_mtime) / 86400
    return f"{folder}  {size_mb(folder):9.1f} MB  {days:6.1f} days old  {known}"


def _state(folder: Path) -> State | None:
    run = folder.parent.parent / "runs" / folder.name
    return read_state(run) if owner(run) == owner(folder) else None


def confirmed(chosen: list[Path]) -> bool:
    """Asks the user to confirm; ConfigError where there is no terminal."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "Nothing was removed: there is no terminal to confirm at. Set yes=true to remove what is listed."
        )
    question = f"Folders to remove: {len(chosen)}, {sum(map(size_mb, chosen)):.1f} MB. Remove them? [y/N] "
    return input(question).strip().lower() in ("y", "yes")


def size_mb(folder: Path) -> float:
    """The size of the files in ``folder``, in MB; a link counts as itself."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


run = verb("clean", main)

if __name__ == "__main__":
    run()
