"""The one optimizer that PyTorch does not give in the form convolutional networks need."""

import math
from collections.abc import Callable, Iterable

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
        iterations: int = 5,  # of Newton–Schulz
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.momentum, self.iterations = momentum, iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        gradients: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim > 1 and weight.grad is not None:
                    gradients[weight], weight.grad = weight.grad, None
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(self._direction(weight, gradients[weight]), alpha=group["lr"])
        result: float | None = super().step(closure)  # AdamW passes over what has no gradient
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return result

    def _direction(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            # AdamW looks for "step" in every state that it loads.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(gradient))
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - self.momentum)
        matrix = gradient.lerp(momentum, self.momentum).flatten(1)
        direction = _orthogonal(matrix, self.iterations).to(gradient.dtype)
        return 0.2 * math.sqrt(max(matrix.shape)) * direction.reshape(gradient.shape)


def _orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """About U·Vᵀ of the matrix's singular value decomposition, in bfloat16."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.bfloat16().T if tall else matrix.bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if tall else x
