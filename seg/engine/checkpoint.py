"""Checkpoints: one file holds all that a run needs to continue as if it had never stopped."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seg.engine.loop import Progress, Training
from seg.engine.seeding import random_state, set_random_state
from seg.errors import DataError
from seg.files import atomic


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


def load(path: Path, training: Training) -> None:
    """Puts a checkpoint's state into ``training``, whose parts are built as they were when it was saved.

    Raises:
        DataError: the file is missing, damaged, or of another network.
    """
    content = read(path)
    try:
        training.network.load_state_dict(content["network"])
        if training.average is not None:
            training.average.load_state_dict(content["average"])
        training.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} is a checkpoint of another network or optimizer: {error}") from error
    training.scheduler.load_state_dict(content["scheduler"])
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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise DataError(
            f"{path} cannot be read as a checkpoint: {error}. Remove it and resume from the other one."
        ) from error
    return dict(content)


def load_weights(path: Path, network: torch.nn.Module) -> None:
    """Puts the weights that were validated into ``network``: the weight average where the run kept one."""
    content = read(path)
    weights = content["network"]
    if content["average"] is not None:
        weights = {
            key.removeprefix("module."): value for key, value in content["average"].items() if key != "n_averaged"
        }
    network.load_state_dict(weights)
