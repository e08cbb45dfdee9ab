"""The snippets of docs/extending.md do what the text says."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from seg.models import insert_attention, unet

DOC = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def options():
    """The options of the text, with its Python blocks as importable modules."""
    blocks = re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", DOC.read_text(), re.DOTALL)
    found, added = {}, ["mylab"]
    sys.modules["mylab"] = types.ModuleType("mylab")
    for kind, path, text in blocks:
        if kind == "python":
            name = path.removesuffix(".py").replace("/", ".")
            module = sys.modules[name] = types.ModuleType(name)
            exec(compile(text, path, "exec"), module.__dict__)
            added.append(name)
        else:
            found[path.removesuffix(".yaml").removeprefix("conf/")] = OmegaConf.create(text)
    yield found
    for name in added:
        del sys.modules[name]


def test_every_kind_is_shown(options):
    assert set(options) == {"model/tiny", "attention/gain", "loss/smoothed_ce", "scheduler/halved"}


@pytest.mark.parametrize("dims", [2, 3])
def test_model_and_attention(options, dims):
    network = instantiate(options["model/tiny"], in_channels=2, out_channels=3, dims=dims, _convert_="all")
    attention = OmegaConf.to_container(options["attention/gain"])
    where = attention.pop("where")
    image = torch.randn(1, 2, *[8] * dims)
    for target in (network, unet(2, 3, dims, channels=[4, 8], strides=[2])):
        before = target(image)
        torch.testing.assert_close(insert_attention(target, instantiate(attention), where)(image), before)


def test_loss_and_scheduler(options):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = instantiate(options["loss/smoothed_ce"])(logits, torch.zeros(1, 4, 4, dtype=torch.uint8))
    loss.backward()
    optimizer = torch.optim.SGD([logits], 0.1)
    scheduler = instantiate(options["scheduler/halved"])(optimizer, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 5 + [0.05] * 5)
