"""What is refused when the objects of a run are built, and the budget they get."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from composing import composed
from omegaconf import OmegaConf

from seg.data.fingerprint import CasePrint, Fingerprint
from seg.data.plan import make_plan
from seg.data.splits import Split
from seg.engine.build import build_network, build_run, build_training, suited
from seg.engine.cases import plan_of, read_material, settle
from seg.engine.device import Precision, choose_device, choose_precision
from seg.engine.distributed import World
from seg.engine.progress import Budget, Progress, budget_of
from seg.errors import ConfigError


@pytest.mark.parametrize(("batch_size", "larger"), [(4, 6), (1, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(
    phantom_root: Path, tmp_path: Path, batch_size: int, larger: int
) -> None:
    given = {"data": "folder", "data.root": phantom_root, "paths.outputs": tmp_path, "data.batch_size": batch_size}
    cfg = composed(*(f"{key}={value}" for key, value in given.items()))
    precision = choose_precision("fp32", choose_device("cpu"))
    with pytest.raises(ConfigError, match=rf"data\.batch_size is {batch_size}.*3 processes.*batch_size={larger}"):
        build_run(cfg, read_material(cfg), World(size=3), precision)


def test_a_part_that_is_to_be_scored_and_is_not_there_is_named(
    phantom_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = sorted(path.name.removesuffix(".nii.gz") for path in (phantom_root / "labelsTr").glob("*.nii.gz"))
    (tmp_path / "split.json").write_text(json.dumps({"train": ids}))
    given = {"data": "folder", "data.root": phantom_root, "paths.outputs": tmp_path, "paths.cache": tmp_path}
    given |= {"data.split_file": tmp_path / "split.json", "trainer.max_steps": 3, "inference.checkpoint": "last"}
    cfg = composed(*(f"{key}={value}" for key, value in given.items()))
    precision = choose_precision("fp32", choose_device("cpu"))
    build_run(cfg, read_material(cfg), World(), precision)
    assert f"no case will be scored. Add a part test to {tmp_path / 'split.json'}." in caplog.text
    cfg.inference.part = "val"
    with pytest.raises(ConfigError, match=r"inference\.part=val scores the validation part, and this split has none"):
        build_run(cfg, read_material(cfg), World(), precision)


def test_a_plan_is_made_of_the_cases_of_the_split_alone(phantom_root: Path, tmp_path: Path) -> None:
    ids = sorted(path.name.removesuffix(".nii.gz") for path in (phantom_root / "labelsTr").glob("*.nii.gz"))
    given = {"data": "folder", "data.root": phantom_root, "paths.outputs": tmp_path, "paths.cache": tmp_path}
    cfg = composed(*(f"{key}={value}" for key, value in given.items()))
    prints = read_material(cfg).fingerprint
    coarse = replace(prints.by_id[ids[0]], spacing_mm=(9.0, 9.0, 9.0))
    prints = replace(prints, cases=tuple(coarse if case.id == ids[0] else case for case in prints.cases))
    split = Split((ids[1],), (ids[2],), (), fold=0, folds=1, seed=0)
    without = replace(prints, cases=tuple(case for case in prints.cases if case.id in ids[1:3]))
    assert plan_of(cfg, prints, split) == plan_of(cfg, without, split)
    assert plan_of(cfg, prints, split) != plan_of(cfg, prints, replace(split, train=tuple(ids[:2])))


def test_kernels_are_narrow_on_thick_slices_but_not_where_an_earlier_plan_says_nothing_of_them() -> None:
    one = CasePrint("a", "a", (64, 64, 8), (1.0, 1.0, 6.0), "", "", {1: 9}, ())
    cfg = composed("model=dynunet", "model.width=4", "dims=3")
    plan = make_plan(Fingerprint((one,), ("MRI",), {"background": 0, "a": 1}), ["MRI"], dims=3)
    sizes = []
    for kernels in (plan.kernels, ()):
        network = build_network(cfg, replace(plan, kernels=kernels), 1, 2)
        sizes.append({module.kernel_size for module in network.modules() if isinstance(module, torch.nn.Conv3d)})
    assert sizes[0] == sizes[1] | {(3, 3, 1)}
    assert (3, 3, 1) not in sizes[1]


@pytest.mark.parametrize(
    ("shapes", "dims"),
    [([(64, 64, 1), (60, 50, 1)], 2), ([(1, 64, 64)], 2), ([(64, 64, 1), (64, 64, 2)], 3), ([(1, 8, 8), (8, 8, 1)], 3)],
)
def test_volumes_of_one_slice_are_two_dimensional(shapes: list[tuple[int, int, int]], dims: int) -> None:
    cases = tuple(CasePrint(str(shape), "a", shape, (1.0, 1.0, 5.0), "", "", {1: 9}, ()) for shape in shapes)
    cfg = composed()
    settle(cfg, Fingerprint(cases, ("MRI",), {"background": 0, "a": 1}))
    assert cfg.dims == dims


def test_a_patch_is_two_blocks_of_what_the_network_takes() -> None:
    """Of one block, a single voxel would be left on the coarsest map, which cannot be normalised."""
    one = CasePrint("a", "a", (20, 24, 16), (1.0, 1.0, 1.0), "", "", {1: 9}, ())
    cfg = composed("model=swin_unetr", "model.width=12", "model.depths=[1,1,1,1]", "dims=3")
    plan = make_plan(Fingerprint((one,), ("MRI",), {"background": 0, "a": 1}), ["MRI"], dims=3, strides=None)
    network = build_network(cfg, plan, 1, 2)
    assert suited(plan, network, automatic=True).patch == (64, 32, 32)
    with pytest.raises(ConfigError, match=r"two such blocks at least. Set data.patch=\[64, 32, 32\]"):
        suited(replace(plan, patch=(32, 32, 32)), network, automatic=False)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ("{_target_: monai.transforms.CastToTyped, keys: [image], dtype: nothing}", "cannot change a patch.*nothing"),
        pytest.param(
            "{_target_: monai.transforms.Lambdad, keys: [image], func: evil.f}",
            "cannot change a patch.*callable",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "{_target_: monai.transforms.RandFlipd, keys: [image], spatial_axis: 5, prob: 1}",
            "cannot change a patch",
            marks=pytest.mark.slow,
        ),
        ("{_target_: monai.transforms.CenterSpatialCropd, keys: [image], roi_size: [4, 4, 4]}", "transforms made"),
        pytest.param(
            "{_target_: monai.transforms.RandFlipd, key: [image]}", "RandFlipd cannot be built", marks=pytest.mark.slow
        ),
        ("{_target_: monai.transforms.LoadImaged, keys: [image]}", "could run any code"),
    ],
)
def test_an_augmentation_that_fails_is_refused_before_any_volume_is_prepared(
    phantom_root: Path, tmp_path: Path, transform: str, words: str
) -> None:
    given = {"data": "folder", "data.root": phantom_root, "paths.outputs": tmp_path}
    cfg = composed(*(f"{key}={value}" for key, value in given.items()))
    cfg.augmentation.transforms = [OmegaConf.create(transform)]
    precision = choose_precision("fp32", choose_device("cpu"))
    with pytest.raises(ConfigError, match=words):
        build_run(cfg, read_material(cfg), World(), precision)


@pytest.mark.parametrize(
    ("given", "cases", "steps", "minutes", "words"),
    [
        ([], 4, 1000, None, "1000 steps: 40 epochs of 25, each case once in 2, at least 25"),
        ([], 128, 2560, None, "2560 steps: 40 epochs of 64, each case once in 64"),
        (["trainer.max_epochs=3"], 4, 75, None, "75 steps: 3 epochs of 25, each case once in 2, at least 25"),
        (["trainer.steps_per_epoch=7"], 4, 280, None, "280 steps: 40 epochs of 7"),
        (["trainer.accumulate=2"], 128, 1280, None, "1280 steps: 40 epochs of 32, each case once in 32"),
        (["trainer.max_steps=9"], 4, 9, None, "9 steps: trainer.max_steps"),
        (["trainer.max_minutes=1.5"], 4, None, 1.5, "1.5 min: trainer.max_minutes"),
        (["data.max_steps=300", "data.max_minutes=4.5"], 4, 300, 4.5, "300 steps, at most 4.5 min: mine's own"),
        (["data.max_minutes=4"], 4, None, 4, "4 min: mine's own"),
        (["data.max_steps=300", "trainer.max_epochs=2"], 4, 50, None, "50 steps: 2 epochs of 25"),
    ],
)
def test_the_budget_and_why(given: list[str], cases: int, steps: int | None, minutes: float | None, words: str) -> None:
    cfg = composed("data=folder", "data.root=here", "data.name=mine", *given)
    budget, why = budget_of(cfg, cases, batch_size=2)
    assert (budget.steps, budget.minutes) == (steps, minutes)
    assert why.startswith(words)


def test_a_schedule_must_be_one_that_can_be_placed() -> None:
    cfg = composed("data=folder", "data.root=here")
    cfg.scheduler = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True}
    with pytest.raises(ConfigError, match=r"makes a CosineAnnealingLR; it must make a torch.*LambdaLR"):
        build_training(cfg, torch.nn.Linear(2, 2), Budget(9, None, 1), Precision(torch.device("cpu"), None))


def test_of_steps_and_minutes_the_first_to_end_ends_the_run_and_the_schedule() -> None:
    budget = Budget(steps=100, minutes=2.0, steps_per_epoch=10)
    by_steps, by_time = Progress(step=50, seconds=30.0), Progress(step=10, seconds=90.0)
    assert (budget.clock_ends_first(by_steps), budget.clock_ends_first(by_time)) == (False, True)
    assert budget.schedule_step(Progress(step=50, seconds=90.0)) == 0.5 * budget.schedule_steps, "by steps it repeats"
    by_time.by_clock = True
    assert (budget.done(by_steps), budget.done(by_time)) == (0.5, 0.75)
    assert budget.schedule_step(by_time) == 0.75 * budget.schedule_steps
    assert budget.remaining_seconds(by_steps, speed=2.0) == 25
    assert budget.remaining_seconds(by_time, speed=2.0) == 30
    assert budget.spent(Progress(step=100, seconds=1.0))
    assert budget.spent(Progress(step=1, seconds=120.0))
    assert not budget.spent(Progress(step=99, seconds=119.0))
