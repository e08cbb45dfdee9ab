"""Checkpoints: one file holds all that a run needs to continue as if it had never stopped."""

import logging
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seg.engine.loop import Training
from seg.engine.progress import Progress
from seg.engine.seeding import random_state, set_random_state
from seg.errors import DataError
from seg.files import atomic
from seg.records.folder import RunFolder

log = logging.getLogger(__name__)


def save(path: Path, training: Training) -> None:
    """Writes weights, optimizer, scheduler, weight average, progress and random states, whole or not at all.

    Sampling needs no state of its own: a patch depends on the run's seed and the step's number alone.
    """
    content = {
        "network": training.network.state_dict(),
        "average": training.average.state_dict() if training.average else None,
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
        "scaler": training.scaler.state_dict(),
        "progress": asdict(training.progress),
        "random": random_state(),
    }
    with atomic(path) as draft, draft.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def resume(run: RunFolder, training: Training) -> None:
    """Puts the state of the run's last checkpoint into ``training``; of its best one where the last is damaged.

    Without a checkpoint ``training`` stays as it is, at its beginning.

    Raises:
        DataError: every checkpoint is damaged, or is of another network.
    """
    faults = []
    for path in (run.checkpoint("last"), run.checkpoint("best")):
        if not path.exists():
            continue
        try:
            content = read(path)
        except DataError as fault:
            faults.append(str(fault))
            continue
        _restore(path, content, training)
        if faults:
            log.warning("%s The run continues from %s, after step %d.", *faults, path.name, training.progress.step)
        return
    if faults:
        where = run.checkpoint("last").parent
        raise DataError(f"{' '.join(faults)} Restore one from a copy, or remove {where} to begin again at step 0.")


def _restore(path: Path, content: dict[str, Any], training: Training) -> None:
    try:
        training.network.load_state_dict(content["network"])
        if training.average is not None:
            training.average.load_state_dict(content["average"])
        training.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} is a checkpoint of another network or optimizer: {error}") from error
    training.scheduler.load_state_dict(content["scheduler"])
    if content["scaler"]:  # none where the run computed in another precision than here
        training.scaler.load_state_dict(content["scaler"])
    training.progress = Progress(**content["progress"])
    set_random_state(content["random"])


def read(path: Path) -> dict[str, Any]:
    """The checkpoint's content on the CPU; nothing in it is executed (``weights_only``).

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"There is no checkpoint {path}. A run writes its first one at the end of its first epoch.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load looks at no checksum
            if part := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {part} is wrong")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # zipfile, zlib and torch raise a dozen kinds for a damaged file
        raise DataError(f"{path} is damaged ({error}).") from error


def weights(path: Path) -> dict[str, Tensor]:
    """The weights that were validated: the weight average where the run kept one.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        content = read(path)
    except DataError as fault:
        others = [other.name for other in path.parent.glob("*.pt") if other != path]
        instead = f", or remove it to use {others[0]} in its place" if others else ""
        raise DataError(f"{fault} Restore it from a copy{instead}.") from None
    found: dict[str, Tensor] = content["network"]
    if content["average"] is not None:
        found = {key.removeprefix("module."): value for key, value in content["average"].items() if key != "n_averaged"}
    return found
