"""Losses ``f(logits (B, K, *S), target (B, *S), …) -> scalar``, target: class indices 0 … K-1, 0 the background.

A voxel whose target is K or more was annotated by nobody: it has no part in any loss, and no gradient comes from it.

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

Loss = Callable[[Tensor, Tensor], Tensor]
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

    Generalised Dice counts every class, the background too, alike whatever its volume. The boundary loss is the
    distance to the true boundary, in voxels, of each wrongly assigned voxel, averaged over voxels and foreground
    classes: far errors cost more. It is the paper's integral plus the constant that makes 0 its minimum. Distances
    are found on the CPU, which takes about as long as a step of the default network; a class absent from a patch
    has none.

    Source: Sudre et al., Generalised Dice overlap, DLMIA 2017; Kervadec et al., Boundary loss, MIDL 2019, eq. 5.
    """
    overlap, predicted, true = _volumes(logits, target, batch, background=True)
    weight = 1 / true.clamp(min=1) ** 2
    # An absent class would weigh as one voxel does and drown the others: it takes the largest weight of those present.
    weight = torch.where(true > 0, weight, (weight * (true > 0)).amax(-1, keepdim=True))
    union = (weight * (predicted + true)).sum(-1)
    smooth = SMOOTH * weight.amax(-1)  # 0 where nothing at all is annotated
    dice = 1 - (2 * (weight * overlap).sum(-1) + smooth) / (union + smooth).clamp(min=torch.finfo(torch.float32).tiny)
    return dice_weight * dice.mean() + boundary_weight * _boundary(logits, target)


class DeepSupervision(nn.Module):
    """Takes ``loss`` of a tensor, or of a list of logits, full resolution first, weighted 1, 1/2, 1/4 … (sum 1).

    The target of a coarser grid is sampled by nearest neighbour. Source: Isensee et al., nnU-Net, 2021.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss of ``logits`` (B, K, *S) against ``target`` (B, *S)."""
        if isinstance(logits, Tensor):
            return self.loss(logits, target)
        weights = [0.5**level for level in range(len(logits))]
        losses = [self.loss(one, _on_grid(target, one.shape[2:])) for one in logits]
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)


def _on_grid(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    return F.interpolate(target[:, None].float(), size, mode="nearest")[:, 0].long()


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of every voxel (B, *S), or of those that are annotated (N,), one zero where none is.

    PyTorch's own is not deterministic on CUDA for images.
    """
    unknown = _unknown(logits, target)
    target = target.long() if unknown is None else target.long().masked_fill(unknown, 0)
    entropy = -logits.float().log_softmax(1).gather(1, target[:, None])[:, 0]
    if unknown is None:
        return entropy
    return 0 * entropy.flatten()[:1] if unknown.all() else entropy[~unknown]


def _unknown(logits: Tensor, target: Tensor) -> Tensor | None:
    """Where ``target`` holds no class, since nobody annotated the voxel (B, *S); None where all are annotated."""
    unknown = target >= logits.shape[1]
    return unknown if unknown.any() else None


def _tversky(logits: Tensor, target: Tensor, alpha: float, beta: float, batch: bool) -> Tensor:
    """One minus the Tversky index of each foreground class: (K-1,), or (B, K-1) when not over the batch."""
    overlap, predicted, true = _volumes(logits, target, batch, background=False)
    wrong = alpha * (predicted - overlap) + beta * (true - overlap)
    return 1 - (overlap + SMOOTH) / (overlap + wrong + SMOOTH)


def _volumes(logits: Tensor, target: Tensor, batch: bool, *, background: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Soft voxel counts of each class: in both, predicted, true; (K,), or (B, K) when not over the batch."""
    first = 0 if background else 1
    probability = logits.float().softmax(1)[:, first:]
    if (unknown := _unknown(logits, target)) is not None:
        probability = probability.masked_fill(unknown[:, None], 0)
    truth = _one_hot(target, logits)[:, first:]
    axes = list(range(2, logits.ndim))
    counts = torch.stack([(probability * truth).sum(axes), probability.sum(axes), truth.float().sum(axes)])
    if not batch:
        return counts[0], counts[1], counts[2]
    counts = counts.sum(1)
    # Only while training: a validation has different numbers of cases on the processes, and would wait for ever.
    if counts.requires_grad and distributed.is_available() and distributed.is_initialized():
        counts = _SumOverProcesses.apply(counts)  # type: ignore[no-untyped-call]
    return counts[0], counts[1], counts[2]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes. Every process has the same loss of it, so gradients are summed too."""

    @staticmethod
    def forward(_context: object, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Bool (B, K, *S)."""
    classes = torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)
    return target[:, None] == classes.reshape(1, -1, *[1] * (target.ndim - 1))


def _boundary(logits: Tensor, target: Tensor) -> Tensor:
    truth = _one_hot(target, logits)[:, 1:]
    distance = torch.from_numpy(_distances(truth.cpu().numpy())).to(logits.device)
    error = distance * (logits.float().softmax(1)[:, 1:] - truth.float()).abs()
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
