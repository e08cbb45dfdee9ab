"""``python -m seg.clean``: removes predictions, after showing what it would remove and asking.

Masks and pictures of a run go; its own folder with checkpoint and scores stays, but for ``orphans=true``. Nothing is
removed that does not lie directly under ``<outputs>/predictions`` or ``<outputs>/runs`` and name its owner, nothing of
a run that is still going, and no link is followed.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from omegaconf import DictConfig

from seg.cli import entry
from seg.errors import ConfigError
from seg.rundir import OWNER, RunFolders, State, empty, find, owner, read_state
from seg.sync import server


@dataclass(frozen=True)
class Candidate:
    """A folder that may be removed."""

    path: Path
    state: State | None  # of the run that owns it; None where nothing is known any more

    @property
    def going(self) -> bool:
        """Whether its run may still be writing."""
        return self.state is not None and self.state.true_status == "RUNNING"

    def __str__(self) -> str:
        known = f"{self.state.name}, {self.state.true_status}" if self.state else "its run is gone"
        days = (time.time() - self.path.stat().st_mtime) / 86400
        return f"{self.path}  {size_mb(self.path):9.1f} MB  {days:6.1f} days old  {known}"


def main(cfg: DictConfig) -> None:
    """Removes what ``keep``, ``run`` or ``orphans`` selects, once the user agrees.

    Raises:
        ConfigError: not exactly one of the three, an unknown run, or nobody to ask.
    """
    outputs = Path(cfg.paths.outputs)
    doomed = selected(cfg, outputs)
    for candidate in doomed:
        if candidate.going:
            print(f"{candidate.path} is left alone: its run is still going.")
    doomed = [candidate for candidate in doomed if not candidate.going]
    print("\n".join(map(str, doomed)) or "Nothing to remove.")
    if doomed and (cfg.yes or agreed(doomed)):
        for candidate in doomed:
            empty(candidate.path)
            (candidate.path / OWNER).unlink()  # last: a folder half removed is still known to be a run's
            candidate.path.rmdir()
        print(f"Removed {len(doomed)} folders.")


def selected(cfg: DictConfig, outputs: Path) -> list[Candidate]:
    """What the user asked to remove, whether or not its run is still going."""
    given = [key for key in ("keep", "run", "orphans") if cfg[key] is not None and cfg[key] is not False]
    if len(given) != 1:
        raise ConfigError(
            f"Say what to remove by one of keep=3, run=a1b2c3d4 or orphans=true; given: {given or 'none'}."
        )
    predictions = owned(outputs, "predictions")
    if cfg.run is not None:
        folders = find(outputs, str(cfg.run))
        return [candidate for candidate in predictions if owner(candidate.path) == folders.run_id]
    if cfg.orphans:
        return orphans(predictions, owned(outputs, "runs"), cfg.tracking.uri, outputs)
    if not isinstance(cfg.keep, int) or cfg.keep < 0:
        raise ConfigError(f"keep is {cfg.keep!r}; it must be a whole number, 0 or more.")
    going = [candidate for candidate in predictions if candidate.going]
    ended = [candidate for candidate in predictions if not candidate.going]
    return going + sorted(ended, key=lambda candidate: candidate.path.stat().st_mtime, reverse=True)[cfg.keep :]


def owned(outputs: Path, kind: str) -> list[Candidate]:
    """The folders of ``<outputs>/<kind>`` that name an owner.

    Raises:
        ConfigError: ``<outputs>/<kind>`` is a link.
    """
    if (outputs / kind).is_symlink():
        raise ConfigError(
            f"{outputs / kind} is a link, and links are not followed. Set paths.outputs to where it leads."
        )
    found = []
    for path in sorted((outputs / kind).glob("run_*")):
        if run_id := owner(path):
            run = RunFolders.of(outputs, run_id, path.name.removeprefix("run_")).run
            found.append(Candidate(path, read_state(run) if owner(run) == run_id else None))
    return found


def orphans(predictions: list[Candidate], runs: list[Candidate], uri: str | None, outputs: Path) -> list[Candidate]:
    """Predictions whose run's own folder is gone, and both folders of the runs that MLflow says were deleted."""
    known = {owner(candidate.path) for candidate in runs}
    deleted = set(_deleted(runs, uri, outputs))
    gone = [candidate for candidate in predictions if owner(candidate.path) not in known]
    return gone + [candidate for candidate in predictions + runs if owner(candidate.path) in deleted]


def _deleted(runs: list[Candidate], uri: str | None, outputs: Path) -> Iterator[str]:
    open_server = cache(partial(server, uri=uri, outputs=outputs))
    recorded = [(run.path, run.state.uri) for run in runs if run.state and run.state.kind == "mlflow"]
    for path, noted in recorded:
        run_id, mlflow = owner(path) or "", open_server(noted)
        stage = mlflow.stage(run_id)
        if stage == "deleted":
            yield run_id
        elif stage == "unknown":
            print(f"{path} is left alone: {mlflow.name} knows no such run. Is that where it was recorded?")


def agreed(doomed: list[Candidate]) -> bool:
    """Asks; ConfigError where nobody sits at the keyboard."""
    if not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here. Nothing was removed; set yes=true to remove what is listed.")
    total = sum(size_mb(candidate.path) for candidate in doomed)
    return input(f"Remove these {len(doomed)} folders, {total:.1f} MB? [y/N] ").strip().lower() in ("y", "yes")


def size_mb(folder: Path) -> float:
    """What the files in ``folder`` take; a link counts as itself."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


run = entry("clean", main)

if __name__ == "__main__":
    run()
