"""The one optimizer that PyTorch does not give in the form convolutional networks need."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

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
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.ndim > 1 and weight.grad is not None:
                    gradients[weight], weight.grad = weight.grad, None
                    alike[weight.shape[0], weight[0].numel()].append(weight)
            for weights in alike.values():
                for weight, direction in zip(weights, self._directions(weights, gradients), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
        result: float | None = super().step(closure)  # AdamW passes over what has no gradient
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return result

    def _directions(self, weights: Sequence[nn.Parameter], gradients: Mapping[nn.Parameter, Tensor]) -> list[Tensor]:
        """The steps of kernels that are matrices of one shape, for a learning rate of 1."""
        nesterov = []
        for weight in weights:
            gradient, state = gradients[weight], self.state[weight]
            if not state:
                # AdamW looks for "step" in every state that it loads.
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(gradient))
            momentum: Tensor = state["momentum"]
            momentum.lerp_(gradient, 1 - self.momentum)
            nesterov.append(gradient.lerp(momentum, self.momentum).flatten(1))
        matrices = torch.stack(nesterov)
        steps = 0.2 * math.sqrt(max(matrices.shape[1:])) * orthogonal(matrices, self.iterations)
        return [step.view(weight.shape).to(weight.dtype) for step, weight in zip(steps, weights, strict=True)]


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """About U·Vᵀ of the singular value decomposition of each of ``matrices`` (B, M, N), by Newton–Schulz; float32.

    A step takes X to P·X, where P = a + b·G + c·G² is a polynomial of the Gram matrix G = X·Xᵀ. So only G, which is
    small, and the product Q of all P need to be iterated: two products with the large X in place of two a step. In
    float32, since bfloat16 is too coarse for G, and without instructions of its own twenty times slower on a processor.
    """
    x = matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    gram = x @ x.mT
    total: Tensor | None = None
    for left in reversed(range(iterations)):
        step = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        step.diagonal(dim1=1, dim2=2).add_(_A)
        total = step if total is None else step @ total
        if left:
            gram = step @ (step @ gram)  # all of them are polynomials of the first Gram matrix, and commute
    assert total is not None
    result: Tensor = x.mT @ total if tall else total @ x
    return result
