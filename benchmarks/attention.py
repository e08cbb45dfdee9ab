"""CBAM's spatial gate: its 7×7×7 convolution of two maps to one, by planes as it is done, against PyTorch's ``conv3d``.

``python -m benchmarks.attention`` prints the median seconds of forward and backward of each, in turn, and the ratio.
``conv3d`` is timed in float32, as the gate computes, and in bfloat16, as it would run under autocast.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import median_seconds
from seg.models.attention import _by_planes

REPEATS = 7
SHAPES = ((4, 2, 32, 48, 32), (4, 2, 16, 24, 16))


def forward_and_backward(
    convolve: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> float:
    """Median seconds of one thread."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    kernel = torch.randn(1, 2, 7, 7, 7, dtype=dtype, requires_grad=True)
    return median_seconds(lambda: convolve(x, kernel).sum().backward(), REPEATS)


def conv3d(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv3d(x, kernel, padding=3)


def main() -> None:
    torch.set_num_threads(1)
    for shape in SHAPES:
        ours = forward_and_backward(_by_planes, shape, torch.float32)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            theirs = forward_and_backward(conv3d, shape, dtype)
            print(
                f"{'×'.join(map(str, shape))}: by planes {ours * 1e3:.0f} ms, conv3d in {name} {theirs * 1e3:.0f} ms: "
                f"{theirs / ours:.1f} times as fast"
            )


if __name__ == "__main__":
    main()
