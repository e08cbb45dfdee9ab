"""Muon for convolutional networks (PyTorch's own takes matrices only), and an average of the weights."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

# Newton–Schulz coefficients of Jordan's post: they raise small singular values fastest, at the price of an inexact 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(AdamW):
    """Orthogonalised momentum for matrices and kernels (as out × rest matrices); AdamW for biases and normalisations.

    A step is scaled to the size of AdamW's, so one learning rate and one weight decay serve both kinds. PyTorch's own
    Muon takes matrices only. Large matrices are orthogonalised in blocks of rows, which costs a third and was no worse
    (benchmarks/RESULTS.md).

    Source: Jordan et al., Muon, 2024; Liu et al., Muon is scalable for LLM training, arXiv 2502.16982, eq. 4 (scale);
    Khaled et al., MuonBP, arXiv 2510.16981 (blocks).

    Raises:
        ValueError: ``iterations`` or ``rows`` is less than 1.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,  # of AdamW's magnitude
        *,
        weight_decay: float = 0.01,  # decoupled
        momentum: float = 0.95,  # of the matrices, Nesterov's
        iterations: int = 5,  # of Newton–Schulz
        rows: int = 64,  # that a block has at most; of a matrix that is taller than wide, columns
    ) -> None:
        if min(iterations, rows) < 1:
            raise ValueError(f"iterations is {iterations} and rows is {rows}; both must be at least 1")
        super().__init__(params, lr=lr, weight_decay=weight_decay, foreach=True)
        self.momentum, self.iterations, self.rows = momentum, iterations, rows

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        gradients: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.ndim > 1 and weight.grad is not None:
                    gradients[weight], weight.grad = weight.grad, None
                    update = _blocks(self._nesterov(weight, gradients[weight]), weight, self.rows)
                    alike[update.shape[1:]].append((_blocks(weight, weight, self.rows), update))
            for pairs in alike.values():
                self._step_blocks(pairs, group["lr"], group["weight_decay"])
        result: float | None = super().step(closure)  # AdamW passes over what has no gradient
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return result

    def _nesterov(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            # AdamW looks for "step" in every state that it loads.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - self.momentum)
        nesterov: Tensor = gradient.lerp(momentum, self.momentum)
        return nesterov

    def _step_blocks(self, pairs: Sequence[tuple[Tensor, Tensor]], lr: float, weight_decay: float) -> None:
        """One step of weights in the direction of their updates, each pair some blocks (B, M, N) with M ≤ N."""
        grams = torch.cat([update @ update.mT for _, update in pairs])
        roots = torch.split(inverse_roots(grams, self.iterations), [len(update) for _, update in pairs])
        for (weight, update), root in zip(pairs, roots, strict=True):
            size = -lr * 0.2 * math.sqrt(update.shape[2])
            weight.baddbmm_(root, update, beta=1 - lr * weight_decay, alpha=size)


def _blocks(kernel: Tensor, weight: nn.Parameter, rows: int) -> Tensor:
    """A view of ``kernel``, which has the shape of ``weight``, as blocks (B, M, N) with M ≤ N.

    M is the largest divisor of the number of rows from ``rows`` down to half of it; where there is none, one block.
    The columns follow the weight's memory, so that a channels-last kernel need not be copied: their order is free.
    """
    rest = sorted(range(1, weight.ndim), key=weight.stride, reverse=True)
    ordered = kernel.permute(0, *rest)
    matrix = ordered.view(len(weight), -1) if kernel is weight else ordered.reshape(len(weight), -1)
    matrix = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    divisors = (size for size in range(rows, rows // 2, -1) if len(matrix) % size == 0)
    size = len(matrix) if len(matrix) <= rows else next(divisors, len(matrix))
    return torch.unflatten(matrix, 0, (-1, size))


def inverse_roots(grams: Tensor, iterations: int) -> Tensor:
    """About G to the power of -1/2 for each of ``grams`` (B, M, M): with G = X·Xᵀ the product G^-1/2·X is Muon's U·Vᵀ.

    The Newton–Schulz iteration takes X to P·X, where P = a + b·G + c·G² is a polynomial of G. So the small G and the
    product of all P are iterated, and X is multiplied once, where the usual form multiplies it twice an iteration. In
    float32: bfloat16 is too coarse for G, and twenty times slower on a processor without instructions for it.
    """
    norm = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-14)  # ‖X‖²
    grams = grams / norm
    roots: Tensor | None = None
    for left in reversed(range(iterations)):
        step = torch.baddbmm(grams, grams, grams, beta=_B, alpha=_C)
        step.diagonal(dim1=1, dim2=2).add_(_A)
        roots = step * norm.rsqrt() if roots is None else step @ roots
        if left:
            grams = step @ (step @ grams)  # polynomials of one matrix commute
    assert roots is not None
    return roots


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights, which follows quickly at first.

    The decay at update n is min(decay, (1 + n) / (10 + n)), so that the first random weights are forgotten.
    Source: Polyak and Juditsky 1992; the ramp as in TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(average), list(current), weight)

    return AveragedModel(network, multi_avg_fn=update)
