"""Losses ``f(logits (B, K, *S), target (B, *S), …) -> scalar``, target: class indices 0 … K-1, 0 the background.

A voxel whose target is K or more was annotated by nobody: it has no part in any loss, and no gradient comes from it.

Of regions, which overlap, logits and target are (B, R, *S): 1 within a region, 0 outside, more where nobody annotated.
Each is then a question of its own: its probability is the sigmoid, and it has its own cross-entropy in each voxel.

All compute in float32, also under autocast, and stay finite when a class or all foreground is absent. Overlaps (Dice,
Tversky) leave the background out, unless stated. ``batch=True`` counts one overlap over the whole batch, over all
processes too, so that a patch without foreground does not count as a miss; ``False`` averages over the patches.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, distributed, nn

from seg.regions import Regions, among

Loss = Callable[[Tensor, Tensor], Tensor]
_NOBODY = 255  # in the target of regions, where nobody annotated
SMOOTH = 1e-5  # voxels, added to numerator and denominator of an overlap, as in nnU-Net


def dice_ce(
    logits: Tensor, target: Tensor, *, dice_weight: float = 1.0, ce_weight: float = 1.0, batch: bool = True
) -> Tensor:
    """Dice loss plus cross-entropy.

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (the sum); Milletari et al., V-Net, 3DV 2016 (Dice).
    """
    dice = _tversky(logits, target, 0.5, 0.5, batch).mean()
    return dice_weight * dice + ce_weight * _cross_entropy(logits, target).mean()


def dice_focal(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    gamma: float = 2.0,
    batch: bool = True,
) -> Tensor:
    """Dice loss plus focal loss: cross-entropy in which easy voxels count less, the less the larger ``gamma``.

    Source: Lin et al., Focal loss for dense object detection, ICCV 2017, eq. 4, over all classes.
    """
    dice = _tversky(logits, target, 0.5, 0.5, batch).mean()
    entropy = _cross_entropy(logits, target)
    # 1 - p of the true class, kept off 0, where a power below 1 has no gradient.
    focal = ((1 - torch.exp(-entropy)).clamp(min=1e-7) ** gamma * entropy).mean()
    return dice_weight * dice + focal_weight * focal


def tversky(logits: Tensor, target: Tensor, *, alpha: float = 0.3, beta: float = 0.7, batch: bool = True) -> Tensor:
    """Overlap in which false positives weigh ``alpha`` and false negatives ``beta``; 0.5 and 0.5 give Dice.

    Source: Salehi et al., Tversky loss function for image segmentation, MLMI 2017, eq. 3.
    """
    return _tversky(logits, target, alpha, beta, batch).mean()


def focal_tversky(
    logits: Tensor, target: Tensor, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3, batch: bool = True
) -> Tensor:
    """Tversky loss of each class to the power 1 / ``gamma``, as published.

    Its slope is steepest near perfect overlap for ``gamma`` above 1, and for poor overlap below 1.
    Source: Abraham & Khan, A novel focal Tversky loss function, ISBI 2019, eq. 3.
    """
    # Kept off 0, where a power below 1 has an infinite gradient.
    return (_tversky(logits, target, alpha, beta, batch).clamp(min=1e-7) ** (1 / gamma)).mean()


def dice_topk(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    share: float = 0.1,
    batch: bool = True,
) -> Tensor:
    """Dice loss plus the cross-entropy of the hardest voxels only, a ``share`` of those of this process.

    Source: Wu et al., Bridging category-level and instance-level semantic image segmentation, 2016, eq. 3.
    """
    dice = _tversky(logits, target, 0.5, 0.5, batch).mean()
    entropy = _cross_entropy(logits, target).flatten()
    return dice_weight * dice + ce_weight * entropy.topk(max(1, round(share * entropy.numel()))).values.mean()


def generalised_dice_boundary(
    logits: Tensor, target: Tensor, *, dice_weight: float = 1.0, boundary_weight: float = 0.01, batch: bool = True
) -> Tensor:
    """Generalised Dice plus a boundary loss.

    Generalised Dice counts every class, the background too (of regions: the regions), alike whatever its volume. The
    boundary loss is the distance to the true boundary, in voxels, of each wrongly assigned voxel, averaged over voxels
    and foreground classes: far errors cost more. It is the paper's integral plus the constant that makes 0 its minimum.
    Distances are found on the CPU, which takes about as long as a step of the default network; a class absent from a
    patch has none.

    Source: Sudre et al., Generalised Dice overlap, DLMIA 2017; Kervadec et al., Boundary loss, MIDL 2019, eq. 5.
    """
    overlap, predicted, true = _volumes(logits, target, batch, background=True)
    weight = 1 / true.clamp(min=1) ** 2
    # An absent class would weigh as one voxel does and drown the others: it takes the largest weight of those present.
    present = (true > 0) | ~(true > 0).any(-1, keepdim=True)  # where none is, all weigh the same
    weight = torch.where(present, weight, (weight * present).amax(-1, keepdim=True))
    union = (weight * (predicted + true)).sum(-1)
    smooth = SMOOTH * weight.amax(-1)
    dice = 1 - (2 * (weight * overlap).sum(-1) + smooth) / (union + smooth)
    return dice_weight * dice.mean() + boundary_weight * _boundary(logits, target)


class DeepSupervision(nn.Module):
    """Takes ``loss`` of a tensor, or of a list of logits, full resolution first, weighted 1, 1/2, 1/4 … (sum 1).

    The target of a coarser grid is sampled by nearest neighbour. Source: Isensee et al., nnU-Net, 2021. ``within`` is
    as in ``seg.regions``: where it is given, ``loss`` is asked about regions.
    """

    def __init__(self, loss: Loss, within: Regions | None = None) -> None:
        super().__init__()
        self.loss, self.within = loss, within

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss of ``logits`` (B, K or R, *S) against the label map ``target`` (B, *S)."""
        if isinstance(logits, Tensor):
            return self.loss(logits, _of_regions(target, self.within))
        weights = [0.5**level for level in range(len(logits))]
        losses = [self.loss(one, _of_regions(_on_grid(target, one.shape[2:]), self.within)) for one in logits]
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)


def _on_grid(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    return F.interpolate(target[:, None].float(), size, mode="nearest")[:, 0].long()


def _of_regions(target: Tensor, within: Regions | None) -> Tensor:
    """A label map (B, *S) as the target of regions (B, R, *S), uint8; or as it is, where there are none."""
    if within is None:
        return target
    regions = torch.stack([among(target, own) for own in within], 1).to(torch.uint8)
    return regions.masked_fill((target > len(within))[:, None], _NOBODY)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of every voxel (B, *S), or of those that are annotated (N,), one zero where none is.

    Of regions it is (B, *S, R) or (N, R). PyTorch's own is not deterministic on CUDA for images.
    """
    unknown = _unknown(logits, target)
    if target.ndim == logits.ndim:
        truth = (target == 1).float()
        entropy = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none").movedim(1, -1)
    else:
        target = target.long() if unknown is None else target.long().masked_fill(unknown, 0)
        entropy = -logits.float().log_softmax(1).gather(1, target[:, None])[:, 0]
    if unknown is None:
        return entropy
    return 0 * entropy.flatten()[:1] if unknown.all() else entropy[~unknown]


def _unknown(logits: Tensor, target: Tensor) -> Tensor | None:
    """Where ``target`` holds no class, since nobody annotated the voxel (B, *S); None where all are annotated."""
    unknown = target[:, 0] > 1 if target.ndim == logits.ndim else target >= logits.shape[1]
    return unknown if unknown.any() else None


def _tversky(logits: Tensor, target: Tensor, alpha: float, beta: float, batch: bool) -> Tensor:
    """One minus the Tversky index of each foreground class: (K-1,), or (B, K-1) when not over the batch."""
    overlap, predicted, true = _volumes(logits, target, batch, background=False)
    wrong = alpha * (predicted - overlap) + beta * (true - overlap)
    return 1 - (overlap + SMOOTH) / (overlap + wrong + SMOOTH)


def _volumes(logits: Tensor, target: Tensor, batch: bool, *, background: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Soft voxel counts of each class: in both, predicted, true; (K,), or (B, K) when not over the batch."""
    probability, truth = _probability_and_truth(logits, target, background=background)
    if (unknown := _unknown(logits, target)) is not None:
        probability = probability.masked_fill(unknown[:, None], 0)
    axes = list(range(2, logits.ndim))
    counts = torch.stack([(probability * truth).sum(axes), probability.sum(axes), truth.float().sum(axes)])
    if not batch:
        return counts[0], counts[1], counts[2]
    counts = counts.sum(1)
    # Only while training: a validation has different numbers of cases on the processes, and would wait for ever.
    if counts.requires_grad and distributed.is_available() and distributed.is_initialized():
        total = counts.detach().clone()
        distributed.all_reduce(total)
        # Every process has the same loss of the sum, so its gradient, summed over the processes, is a multiple.
        counts = total + distributed.get_world_size() * (counts - counts.detach())
    return counts[0], counts[1], counts[2]


def _probability_and_truth(logits: Tensor, target: Tensor, *, background: bool) -> tuple[Tensor, Tensor]:
    """Float32 and bool, both (B, K, *S), without the first class where the background is not wanted; regions: all."""
    if target.ndim == logits.ndim:
        return logits.float().sigmoid(), target == 1
    first = 0 if background else 1
    classes = torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)
    truth = target[:, None] == classes.reshape(1, -1, *[1] * (target.ndim - 1))
    return logits.float().softmax(1)[:, first:], truth[:, first:]


def _boundary(logits: Tensor, target: Tensor) -> Tensor:
    probability, truth = _probability_and_truth(logits, target, background=False)
    distance = torch.from_numpy(_distances(truth.cpu().numpy())).to(logits.device)
    error = distance * (probability - truth.float()).abs()
    if (unknown := _unknown(logits, target)) is None:
        return error.mean()
    return error.masked_fill(unknown[:, None], 0).sum() / (~unknown).sum().clamp(min=1) / error.shape[1]


def _distances(truth: np.ndarray) -> np.ndarray:
    """Distance in voxels of every voxel to the other side of the boundary; 0 where a class is absent or everywhere."""
    out = np.zeros(truth.shape, np.float32)
    for index in np.ndindex(*truth.shape[:2]):
        inside = truth[index]
        if inside.any() and not inside.all():
            out[index] = distance_transform_edt(inside) + distance_transform_edt(~inside)
    return out
