"""Counted operations against counting by hand."""

import pytest
import torch
from torch import nn

from seg.models.cost import gflops


def test_a_convolution_is_counted_as_by_hand() -> None:
    conv = nn.Conv3d(3, 5, 3, padding=1)
    assert gflops(conv, 3, (8, 10, 12)) == pytest.approx(2 * 3 * 5 * 27 * 8 * 10 * 12 / 1e9)
    assert gflops(nn.Conv2d(2, 4, 1), 2, (16, 16)) == pytest.approx(2 * 2 * 4 * 256 / 1e9)


def test_the_network_is_left_as_it_was() -> None:
    conv = nn.Conv2d(1, 2, 3).train()
    before = conv.weight.clone()
    gflops(conv, 1, (8, 8))
    assert conv.weight.device.type == "cpu"
    assert torch.equal(conv.weight, before)
    assert conv.training


def test_a_network_that_looks_at_its_values_has_no_count() -> None:
    class Looking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    assert gflops(Looking(), 1, (4, 4)) is None
