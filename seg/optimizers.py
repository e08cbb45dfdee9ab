"""The one optimizer that PyTorch does not give in the form convolutional networks need."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

# Newton–Schulz coefficients of Jordan's post: they raise small singular values fastest, at the price of an inexact 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(AdamW):
    """Orthogonalised momentum for matrices and kernels (as out × rest matrices); AdamW for biases and normalisations.

    A step is scaled to the size of AdamW's, so one learning rate and one weight decay serve both kinds. PyTorch's own
    Muon takes matrices only.

    Source: Jordan et al., Muon, 2024; Liu et al., Muon is scalable for LLM training, arXiv 2502.16982, eq. 4 (scale).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,  # of AdamW's magnitude
        *,
        weight_decay: float = 0.01,  # decoupled
        momentum: float = 0.95,  # of the matrices, Nesterov's
        iterations: int = 5,  # of Newton–Schulz, at least 1
    ) -> None:
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; Muon needs at least 1")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.momentum, self.iterations = momentum, iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        gradients: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.ndim > 1 and weight.grad is not None:
                    gradients[weight], weight.grad = weight.grad, None
                    alike[_out_first(weight, weight).flatten(1).shape].append(weight)
            for weights in alike.values():
                self._step_kernels(weights, [gradients[weight] for weight in weights], group)
        result: float | None = super().step(closure)  # AdamW passes over what has no gradient
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return result

    def _step_kernels(
        self, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor], group: Mapping[str, Any]
    ) -> None:
        """One step of kernels that are matrices (M, N) of one shape."""
        steps = []
        for weight, gradient in zip(weights, gradients, strict=True):
            state = self.state[weight]
            if not state:
                # AdamW looks for "step" in every state that it loads.
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
            momentum: Tensor = state["momentum"]
            momentum.lerp_(gradient, 1 - self.momentum)
            steps.append(_out_first(gradient.lerp(momentum, self.momentum), weight).flatten(1))
        rows, columns = steps[0].shape
        grams = torch.stack([step @ step.T if rows <= columns else step.T @ step for step in steps])
        roots = inverse_roots(grams, self.iterations)
        keep, rate = 1 - group["lr"] * group["weight_decay"], -group["lr"] * 0.2 * math.sqrt(max(rows, columns))
        for weight, step, root in zip(weights, steps, roots, strict=True):
            kernel = _out_first(weight, weight)
            direction = root @ step if rows <= columns else step @ root
            kernel.mul_(keep).add_(direction.view(kernel.shape), alpha=rate)


def inverse_roots(grams: Tensor, iterations: int) -> Tensor:
    """About G to the power of -1/2 for each of ``grams`` (B, M, M): with G = X·Xᵀ the product G^-1/2·X is Muon's U·Vᵀ.

    The Newton–Schulz iteration takes X to P·X, where P = a + b·G + c·G² is a polynomial of G. So the small G and the
    product of all P are iterated, and X is multiplied once, where the usual form multiplies it twice an iteration. In
    float32: bfloat16 is too coarse for G, and twenty times slower on a processor without instructions for it.
    """
    norm = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-14)  # ‖X‖²
    grams = grams / norm
    root = norm.rsqrt() * torch.eye(grams.shape[1], device=grams.device)
    for left in reversed(range(iterations)):
        step = torch.baddbmm(grams, grams, grams, beta=_B, alpha=_C)
        step.diagonal(dim1=1, dim2=2).add_(_A)
        root = step @ root
        if left:
            grams = step @ (step @ grams)  # polynomials of one matrix commute
    return root


def _out_first(kernel: Tensor, weight: nn.Parameter) -> Tensor:
    """A view of ``kernel``, which has the shape of ``weight``, as (out, *rest).

    The rest is in the order of the memory, so that a channels-last kernel need not be copied: Muon's result does not
    depend on the order of columns. Kernels of transposed convolutions, (in, out, *size), are marked by ``out_axis``.
    """
    out: int = getattr(weight, "out_axis", 0)
    rest = sorted({*range(weight.ndim)} - {out}, key=weight.stride, reverse=True)
    return kernel.permute(out, *rest)
