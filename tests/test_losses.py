"""The loss contract, held by every option of conf/loss, and each loss against MONAI or a formula written out."""

import socket

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seg import losses
from seg.config.options import CONF

LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
EACH = pytest.mark.parametrize("name", LOSSES)


def _loss(name, **changes):
    node = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
    return instantiate(node, _convert_="all", **changes)


def _pair(dims=3, classes=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (7, 6, 5)[:dims]
    logits = torch.randn(batch, classes, *size, generator=generator)
    return logits.requires_grad_(), torch.randint(0, classes, (batch, *size), generator=generator)


def _certain(target, classes=3, strength=30.0):
    return F.one_hot(target.long(), classes).movedim(-1, 1).float() * strength


@EACH
@settings(max_examples=15, deadline=None)
@given(
    dims=st.sampled_from([2, 3]),
    classes=st.integers(2, 4),
    batched=st.booleans(),
    seed=st.integers(0, 99),
    scale=st.floats(0.0, 50.0),
)
def test_target_is_the_minimum_and_batch_order_is_nothing(name, dims, classes, batched, seed, scale):
    logits, target = _pair(dims, classes, 3, seed)
    loss = _loss(name, batch=batched)
    value = loss(logits * scale, target)
    best = loss(_certain(target, classes), target)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert 0 <= best < 1e-3
    assert best <= value + 1e-6
    order = [1, 2, 0]
    torch.testing.assert_close(loss((logits * scale)[order], target[order]), value, rtol=1e-4, atol=1e-5)


@EACH
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    "absent", [lambda t: t * 0, lambda t: t * 0 + 2, lambda t: t.clamp(max=1)], ids=["background", "one class", "no 2"]
)
@pytest.mark.parametrize("strength", [0.0, 3.0, 1e4])
def test_finite_when_classes_are_absent(name, batched, absent, strength):
    logits, target = _pair()
    target = absent(target)
    for guess in (logits * strength, _certain(target, strength=strength) + 0 * logits, -_certain(target) + 0 * logits):
        logits.grad = None
        value = _loss(name, batch=batched)(guess, target)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@EACH
def test_computes_in_float32_under_autocast_and_takes_uint8(name):
    logits, target = _pair()
    plain = _loss(name)(logits.bfloat16().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _loss(name)(logits.bfloat16(), target.to(torch.uint8))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)


@EACH
def test_steps_along_the_gradient_lower_it(name):
    logits, target = _pair()
    loss, values = _loss(name), []
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(logits, target)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("batched", [True, False])
def test_dice_ce_is_monais(batched):
    from monai.losses import DiceCELoss

    logits, target = _pair()
    reference = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batched, smooth_nr=2e-5, smooth_dr=2e-5
    )
    ours = losses.dice_ce(logits, target, batch=batched)
    torch.testing.assert_close(ours, reference(logits, target[:, None]), rtol=1e-5, atol=1e-6)


def test_dice_focal_is_monais():
    from monai.losses import DiceLoss, FocalLoss

    logits, target = _pair()
    one_hot = F.one_hot(target, 3).movedim(-1, 1).float()
    dice = DiceLoss(include_background=False, softmax=True, batch=True, smooth_nr=2e-5, smooth_dr=2e-5)(logits, one_hot)
    focal = FocalLoss(use_softmax=True, gamma=1.5, reduction="none")(logits, one_hot).sum(1).mean()
    ours = losses.dice_focal(logits, target, gamma=1.5)
    torch.testing.assert_close(ours, dice + focal, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batched", [True, False])
def test_tversky_is_monais_and_focal_its_power(batched):
    from monai.losses import TverskyLoss

    logits, target = _pair()
    options = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": batched}
    reference = TverskyLoss(**options, alpha=0.2, beta=0.8, reduction="none", smooth_nr=1e-5, smooth_dr=1e-5)
    each = reference(logits, target[:, None])
    ours = losses.tversky(logits, target, alpha=0.2, beta=0.8, batch=batched)
    torch.testing.assert_close(ours, each.mean(), rtol=1e-5, atol=1e-6)
    focal = losses.focal_tversky(logits, target, alpha=0.2, beta=0.8, gamma=1.5, batch=batched)
    torch.testing.assert_close(focal, (each ** (1 / 1.5)).mean(), rtol=1e-5, atol=1e-6)


def test_tversky_weighs_misses_more_than_false_alarms():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, 2:6, 2:6] = 1
    less, more = target.clone(), target.clone()
    less[:, 2:4, 2:6], more[:, 6:8, 2:6] = 0, 1
    assert losses.tversky(_certain(less, 2), target) > losses.tversky(_certain(more, 2), target)


def test_topk_takes_the_hardest_share():
    logits, target = _pair()
    p = logits.softmax(1).gather(1, target[:, None]).flatten()
    hardest = (-p.log()).sort(descending=True).values[: round(0.2 * p.numel())].mean()
    ours = losses.dice_topk(logits, target, dice_weight=0.0, share=0.2)
    torch.testing.assert_close(ours, hardest)


def test_generalised_dice_is_monais_where_every_class_is_present():
    from monai.losses import GeneralizedDiceLoss

    logits, target = _pair()
    reference = GeneralizedDiceLoss(include_background=True, to_onehot_y=True, softmax=True, smooth_nr=0, smooth_dr=0)
    ours = losses.generalised_dice_boundary(logits, target, boundary_weight=0.0, batch=False)
    torch.testing.assert_close(ours, reference(logits, target[:, None]), rtol=1e-4, atol=1e-5)


def test_boundary_counts_the_distance_of_wrong_voxels():
    """Against the paper's signed distances, by brute force, less their value at the target."""
    logits, target = _pair(dims=2, classes=2, batch=1)
    truth = target[0].numpy() == 1
    grid = np.argwhere(np.ones_like(truth))
    signed = np.zeros(truth.shape)
    for voxel in grid:
        other = grid[truth[tuple(grid.T)] != truth[tuple(voxel)]]
        signed[tuple(voxel)] = np.sqrt(((other - voxel) ** 2).sum(1)).min() * (-1 if truth[tuple(voxel)] else 1)
    p = logits.detach().softmax(1)[0, 1].numpy()
    expected = (signed * (p - truth)).mean()
    ours = losses.generalised_dice_boundary(logits, target, dice_weight=0.0, boundary_weight=1.0)
    assert float(ours.detach()) == pytest.approx(expected, rel=1e-5)


def test_deep_supervision_weighs_the_levels():
    def loss(logits, target):
        assert logits.shape[2:] == target.shape[1:]
        return logits.mean() + target.float().mean()

    supervised = losses.DeepSupervision(loss)
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    heads = [torch.full((1, 2, size, size), value) for size, value in ((8, 7.0), (4, 70.0), (2, 700.0))]
    assert float(supervised(heads, target)) == pytest.approx((7 * 4 + 70 * 2 + 700) / 7)
    assert float(supervised(heads[0], target)) == 7


def test_deep_supervision_samples_the_target_by_nearest_neighbour():
    target = torch.arange(3).repeat_interleave(4).repeat(12, 1)[None]
    heads = [_certain(target), _certain(target[:, ::4, ::4])]
    assert losses.DeepSupervision(losses.dice_ce)(heads, target) < 1e-4
    assert losses.DeepSupervision(losses.dice_ce)([heads[0], heads[1].flip(-1)], target) > 1


def _gradient_of_rank(rank, port, out):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    logits, target = _pair(batch=4)
    mine = logits.detach()[rank::2].requires_grad_()
    losses.tversky(mine, target[rank::2]).backward()
    torch.save(mine.grad / 2, f"{out}/{rank}.pt")  # DDP averages over the processes
    with torch.no_grad():  # a validation on one process alone does not wait for the other
        if rank == 0:
            losses.tversky(mine, target[rank::2])
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_batch_overlap_spans_all_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_gradient_of_rank, (port, str(tmp_path)), nprocs=2)
    logits, target = _pair(batch=4)
    losses.tversky(logits, target).backward()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), logits.grad[rank::2], rtol=1e-4, atol=1e-7)


@EACH
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_what_nobody_annotated_has_no_part(name, batched, dims):
    """Whatever the network says there, the value is the same, and no gradient comes from there."""
    logits, target = _pair(dims)
    target[:, 3:] = 255
    other = logits.detach().clone()
    other[:, :, 3:] = 9 * torch.randn(other[:, :, 3:].shape, generator=torch.Generator().manual_seed(1))
    loss = _loss(name, batch=batched)
    value = loss(logits, target.to(torch.uint8))
    value.backward()
    torch.testing.assert_close(loss(other, target), value.detach())
    assert logits.grad[:, :, 3:].abs().max() == 0
    assert logits.grad[:, :, :3].abs().max() > 0


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky", "focal_tversky"])
def test_the_loss_of_what_was_annotated_is_that_of_a_smaller_patch(name):
    logits, target = _pair()
    kept, known = logits[:, :, :3], target[:, :3].clone()
    target[:, 3:] = 255
    torch.testing.assert_close(_loss(name)(logits, target), _loss(name)(kept, known))


@EACH
@pytest.mark.parametrize("batched", [True, False])
def test_a_patch_that_nobody_annotated_trains_nothing(name, batched):
    logits, target = _pair()
    value = _loss(name, batch=batched)(logits, torch.full_like(target, 255))
    value.backward()
    assert value.isfinite()
    assert logits.grad.abs().max() == 0


def test_deep_supervision_keeps_what_nobody_annotated():
    logits, target = _pair()
    target[:, 3:] = 255
    coarse = F.interpolate(logits.detach(), (4, 3, 3))
    loss = losses.DeepSupervision(_loss("dice_ce"))
    changed = coarse.clone()
    changed[:, :, 2:] += 5
    torch.testing.assert_close(loss([logits, coarse], target), loss([logits, changed], target))


WITHIN = ((1, 2, 3), (2, 3), (3,))  # whole, core, enhancing


def _asked(name, **changes):
    """A loss of logits (B, 3, *S) against a label map of three nested regions."""
    return losses.DeepSupervision(_loss(name, **changes), WITHIN)


def _nested(target, strength=30.0):
    """Logits that are sure of the regions of a label map."""
    inside = torch.stack([sum(target == index for index in own) for own in WITHIN], 1).float()
    return (2 * inside - 1) * strength


@EACH
@pytest.mark.parametrize(("dims", "batched"), [(2, True), (3, False)])
@pytest.mark.parametrize("most", [3, 2, 0], ids=["all", "one absent", "nothing there"])
def test_regions_have_their_minimum_at_the_target_and_are_finite(name, dims, batched, most):
    logits, target = _pair(dims, batch=2)
    target = torch.randint(0, 4, target.shape, generator=torch.Generator().manual_seed(1)).clamp(max=most)
    loss = _asked(name, batch=batched)
    assert 0 <= loss(_nested(target), target) < 1e-3
    for strength in (0.0, 3.0, 1e4):
        logits.grad = None
        value = loss(logits * strength, target)
        value.backward()
        assert value.isfinite()
        assert value > loss(_nested(target), target)
        assert logits.grad.isfinite().all()
    assert loss(-_nested(target), target).isfinite()


@EACH
@pytest.mark.parametrize("dims", [2, 3])
def test_regions_do_not_count_what_nobody_annotated(name, dims):
    logits, target = _pair(dims)
    target[:, 3:] = 255
    other = logits.detach().clone()
    other[:, :, 3:] += 5
    value = _asked(name)(logits, target.to(torch.uint8))
    value.backward()
    torch.testing.assert_close(_asked(name)(other, target), value.detach())
    assert logits.grad[:, :, 3:].abs().max() == 0
    assert logits.grad[:, :, :3].abs().max() > 0
    logits.grad = None
    _asked(name)(logits, torch.full_like(target, 255)).backward()
    assert logits.grad.abs().max() == 0


@EACH
def test_one_region_is_asked_as_one_class_beside_the_background_is(name):
    """The softmax over 0 and z is the sigmoid of z. (Generalised Dice has a background among classes alone.)"""
    logits, target = _pair(classes=2)
    changes = {"dice_weight": 0.0, "boundary_weight": 1.0} if "generalised" in name else {}
    difference = (logits[:, 1:] - logits[:, :1]).detach().requires_grad_()
    region = losses.DeepSupervision(_loss(name, **changes), ((1,),))(difference, target)
    plain = _loss(name, **changes)(logits, target)
    torch.testing.assert_close(region, plain)
    region.backward()
    plain.backward()
    torch.testing.assert_close(difference.grad, logits.grad[:, 1:])


def test_dice_and_cross_entropy_of_regions_are_monais():
    from monai.losses import DiceLoss

    logits, target = _pair()
    truth = torch.stack([target > 0, target == 2], 1).float()
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=2e-5, smooth_dr=2e-5)(logits[:, :2], truth)
    reference = dice + F.binary_cross_entropy_with_logits(logits[:, :2], truth)
    ours = losses.DeepSupervision(losses.dice_ce, ((1, 2), (2,)))(logits[:, :2], target)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6)


def test_deep_supervision_of_regions_samples_the_label_map():
    target = torch.arange(4).repeat_interleave(4).repeat(16, 1)[None]
    heads = [_nested(target), _nested(target[:, ::4, ::4])]
    assert _asked("dice_ce")(heads, target) < 1e-4
    assert _asked("dice_ce")([heads[0], heads[1].flip(-1)], target) > 1
