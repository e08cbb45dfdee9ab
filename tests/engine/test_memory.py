"""Plans that give way to the memory of the machine."""

import logging
import math
from pathlib import Path

import pytest
import torch
from composing import composed

from seg.engine import memory
from seg.engine.build import build_network, suited
from seg.engine.cases import read_material
from seg.engine.device import total_mib
from seg.engine.distributed import World
from seg.models import unet
from seg.models.cost import kept_mib

CPU = torch.device("cpu")

ALONE = World()


@pytest.fixture
def planned(phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def made(mib: float, *given: str, world: World = ALONE):
        root, outputs = f"data.root={phantom_root}", f"paths.outputs={tmp_path}"
        cfg = composed("data=folder", root, outputs, f"paths.cache={tmp_path}", "model.channels=[4,8,8,8]", *given)
        monkeypatch.setattr(memory, "total_mib", lambda _: mib)

        def build(plan):
            network = build_network(cfg, plan, 1, 3)
            return network, suited(plan, network, automatic=cfg.data.patch == "auto")

        material = read_material(cfg)
        return material.plan, memory.fitted(cfg, material, CPU, world, build)[1]

    return made


def test_an_automatic_batch_is_shared_out_evenly(planned):
    before, plan = planned(10_000, "data.patch=[16,16,16]", world=World(size=3, local_size=3))
    assert (before.batch_size, plan.batch_size) == (8, 6)
    assert plan.reasons[-1] == "batch 6 of 16×16×16: the same share for each of 3 processes"
    _, plan = planned(4, "data.patch=[16,16,16]", world=World(size=3, local_size=3))
    assert plan.batch_size == 3


def test_a_plan_that_fits_stays(planned):
    before, plan = planned(10_000)
    assert plan == before


def test_the_batch_gives_way_then_the_patch_and_the_plan_says_so(planned):
    before, plan = planned(45)
    assert plan.batch_size == 2
    assert math.prod(plan.patch) < math.prod(before.patch)
    assert "the memory holds no more" in plan.reasons[-1]


def test_what_is_given_stays_and_a_warning_says_what_to_do(planned, caplog):
    with caplog.at_level(logging.WARNING):
        before, plan = planned(10, "data.batch_size=4", "data.patch=[32,32,32]")
    assert plan == before
    assert "Set data.batch_size or data.patch lower" in caplog.text


def test_a_given_patch_stays_and_an_automatic_batch_gives_way(planned):
    before, plan = planned(4, "data.patch=[16,16,16]")
    assert (before.batch_size, plan.patch) == (8, (16, 16, 16))
    assert 2 <= plan.batch_size < 8


def test_what_is_kept_is_counted_as_by_hand():
    conv = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Sigmoid(), torch.nn.Conv3d(4, 2, 1))
    voxels = 8 * 10 * 12
    assert kept_mib(conv, 1, (8, 10, 12)) == pytest.approx((1 + 4) * voxels * 4 / 2**20)  # the image, and the sigmoid's
    network = unet(1, 3, 3, channels=[4, 8], strides=[2])
    assert kept_mib(network, 1, (16, 16, 32)) == pytest.approx(2 * kept_mib(network, 1, (16, 16, 16)), rel=0.05)


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = total_mib(CPU)
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    monkeypatch.setattr("seg.engine.device._GROUP", tmp_path)
    assert total_mib(CPU) == 1024 < whole
    (tmp_path / "memory.max").write_text("max\n")
    assert total_mib(CPU) == pytest.approx(whole)
