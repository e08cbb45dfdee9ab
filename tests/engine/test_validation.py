"""What chooses best.pt: classes that a case has; and what is known before volumes are prepared."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training import TINY, arguments, composed

from seg.data.classes import IGNORE
from seg.engine.distributed import World
from seg.engine.inference import Slices
from seg.engine.testing import validate
from seg.errors import ConfigError


class Held(nn.Module):
    """A loss with tensors of its own, on a GPU as far as it knows."""

    place = "cuda"

    def _apply(self, change: Any, recurse: bool = True) -> "Held":
        self.place = change(torch.zeros(1)).device.type
        return super()._apply(change, recurse)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert self.place == logits.device.type == target.device.type
        return torch.tensor(0.5)


def validated(
    labels: list[np.ndarray], preds: list[np.ndarray], names: list[str], loss: nn.Module | None = None
) -> dict[str, float]:
    store: Any = {
        str(n): SimpleNamespace(image=pred[None], label=label)
        for n, (label, pred) in enumerate(zip(labels, preds, strict=True))
    }

    def predict(_network: nn.Module, image: np.ndarray) -> Any:
        logits = nn.functional.one_hot(torch.from_numpy(image[0]).long(), len(names) + 1).movedim(-1, 0).float()
        return Slices(2, iter(logits.unbind(3)))

    return validate(nn.Identity(), store, list(store), predict, loss or Held(), names, World())  # type: ignore[arg-type]


def ball(value: int) -> np.ndarray:
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:4, 1:4, 1:4] = value
    return label


def test_an_empty_prediction_is_worth_nothing_however_many_classes_are_absent() -> None:
    found = validated([ball(1)] * 2, [ball(0)] * 2, ["a", *(f"absent {n}" for n in range(77))])
    assert found == {"val_dice": 0, "val_loss": 0.5, "val_dice_a": 0}


def test_a_loss_that_holds_tensors_is_computed_where_whole_volumes_are_and_stays_where_it_is() -> None:
    loss = Held()
    assert validated([ball(1)], [ball(1)], ["a"], loss)["val_loss"] == 0.5
    assert loss.place == "cuda", "for the training goes on there"


def test_a_class_counts_where_it_is() -> None:
    found = validated([ball(1), ball(2)], [ball(1), ball(0)], ["a", "b", "absent"])
    assert found == {"val_dice": 0.5, "val_loss": 0.5, "val_dice_a": 1, "val_dice_b": 0}


def test_a_false_structure_is_worth_nothing() -> None:
    found = validated([ball(1)], [ball(2)], ["a", "b"])
    assert (found["val_dice"], found["val_dice_a"], found["val_dice_b"]) == (0, 0, 0)


def test_what_nobody_annotated_is_not_scored() -> None:
    label = ball(1)
    label[4:] = IGNORE
    pred = ball(1)
    pred[4:] = 1
    assert validated([label], [pred], ["a"])["val_dice"] == 1


def test_a_patch_that_the_network_cannot_take_is_refused_before_a_volume_is_prepared(
    phantom_root: Path, tmp_path: Path
) -> None:
    from seg.train import train

    cache = tmp_path / "cache"
    with pytest.raises(ConfigError, match="patch"):
        train(composed(*TINY, *arguments(phantom_root, tmp_path, cache), "data.patch=[30,30,30]"), "bad patch")
    assert not [path for path in cache.iterdir() if path.is_dir()]
