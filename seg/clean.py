"""``python -m seg.clean``: removes predictions, after showing what it would remove and asking.

Masks and pictures of a run go; its own folder with checkpoint and scores stays, but for ``orphans=true``. Nothing is
removed that does not lie directly under ``<outputs>/predictions`` or ``<outputs>/runs`` and name its owner, nothing of
a run that is still going, and no link is followed.
"""

import sys
import time
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from seg.config.command import verb
from seg.config.content import number
from seg.errors import ConfigError
from seg.records.folder import OWNER, RunFolders, State, claimed, empty, find, owner, read_state
from seg.records.mlflow import Mlflow


def main(cfg: DictConfig) -> None:
    """Removes what ``keep``, ``run`` or ``orphans`` selects, once the user agrees.

    Raises:
        ConfigError: not exactly one of the three, an unknown run, or nobody to ask.
    """
    folders = selected(cfg, Path(cfg.paths.outputs))
    doomed = [folder for folder in folders if not going(folder)]
    for folder in filter(going, folders):
        print(f"{folder} is left alone: its run is still going.")
    print("\n".join(map(described, doomed)) or "Nothing to remove.")
    if doomed and (cfg.yes or agreed(doomed)):
        for folder in doomed:
            empty(folder)
            (folder / OWNER).unlink()  # last: a folder half removed is still known to be a run's
            folder.rmdir()
        print(f"Removed {len(doomed)} folders.")


def selected(cfg: DictConfig, outputs: Path) -> list[Path]:
    """The folders that the user asked to remove, whether or not their run is still going."""
    given = [key for key in ("keep", "run", "orphans") if cfg[key] is not None and cfg[key] is not False]
    if len(given) != 1:
        options = "keep=3, run=a1b2c3d4 or orphans=true"
        raise ConfigError(f"Say what to remove by one of {options}; given: {given or 'none'}.")
    runs, predictions = (_listed(outputs, kind) for kind in ("runs", "predictions"))
    if cfg.run is not None:
        meant = find(outputs, str(cfg.run)).run_id
        return [folders.predictions for folders in predictions if folders.run_id == meant]
    if cfg.orphans:
        return orphans(runs, predictions, cfg.tracking.uri, outputs)
    keep = number(cfg.keep)
    if not isinstance(keep, int) or keep < 0:
        raise ConfigError(f"keep is {cfg.keep!r}; it must be a whole number, 0 or more.")
    newest = sorted((run.predictions for run in predictions), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in newest if going(path)] + [path for path in newest if not going(path)][keep:]


def _listed(outputs: Path, kind: str) -> list[RunFolders]:
    if (outputs / kind).is_symlink():
        raise ConfigError(f"{outputs / kind} is a link, and links are not followed. Set paths.outputs to its target.")
    return claimed(outputs, kind)


def orphans(runs: list[RunFolders], predictions: list[RunFolders], uri: str | None, outputs: Path) -> list[Path]:
    """Predictions whose run's own folder is gone, and both folders of the runs that MLflow says were deleted."""
    known = {run.run_id for run in runs}
    gone = [folders.predictions for folders in predictions if folders.run_id not in known]
    mlflow_at = cache(lambda noted: Mlflow(uri or noted, outputs))
    for run in runs:
        state = read_state(run.run)
        if state and state.kind == "mlflow":
            mlflow = mlflow_at(state.uri)
            stage = mlflow.stage(run.run_id)
            if stage == "deleted":
                gone += [path for path in (run.predictions, run.run) if owner(path) == run.run_id]
            elif stage == "unknown":
                print(f"{run.run} is left alone: {mlflow.name} knows no such run. Is that where it was recorded?")
    return gone


def going(folder: Path) -> bool:
    """Whether the run that owns ``folder`` may still be writing."""
    state = _state(folder)
    return state is not None and state.true_status == "RUNNING"


def described(folder: Path) -> str:
    """One line: path, size, age, and what is known of its run."""
    state = _state(folder)
    known = f"{state.name}, {state.true_status}" if state else "its run is gone"
    days = (time.time() - folder.stat().st_mtime) / 86400
    return f"{folder}  {size_mb(folder):9.1f} MB  {days:6.1f} days old  {known}"


def _state(folder: Path) -> State | None:
    run = folder.parent.parent / "runs" / folder.name
    return read_state(run) if owner(run) == owner(folder) else None


def agreed(doomed: list[Path]) -> bool:
    """Asks; ConfigError where nobody sits at the keyboard."""
    if not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here. Nothing was removed; set yes=true to remove what is listed.")
    question = f"Remove these {len(doomed)} folders, {sum(map(size_mb, doomed)):.1f} MB? [y/N] "
    return input(question).strip().lower() in ("y", "yes")


def size_mb(folder: Path) -> float:
    """What the files in ``folder`` take; a link counts as itself."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


run = verb("clean", main)

if __name__ == "__main__":
    run()
