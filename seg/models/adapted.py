"""MONAI networks whose output, head or normalisation is changed to suit the contract."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets import BasicUNetPlusPlus, DynUNet, SegResNet
from torch import Tensor, nn

from seg.models.thick import restride

Layer = str | Sequence[str | dict[str, object]]  # a name, or a name and its arguments


class NestedUNet(BasicUNetPlusPlus):
    """Gives the deepest decoder first, MONAI's list starts with the shallowest; its strides are per level and axis."""

    def __init__(self, *args: Any, strides: Sequence[Sequence[int]], **options: Any) -> None:
        super().__init__(*args, **options)
        for level, stride in enumerate(strides, 1):
            for name, part in self.named_children():
                if name == f"conv_{level}_0" or name.startswith(f"upcat_{level - 1}_"):
                    restride(part, stride)
        if not self.deep_supervision:  # MONAI computes these heads and drops them: DDP refuses weights without gradient
            self.final_conv_0_1 = self.final_conv_0_2 = self.final_conv_0_3 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, *S); a list in training with deep supervision."""
        logits: list[Tensor] = super().forward(x)[::-1]
        return logits if self.training and self.deep_supervision else logits[0]


class OwnGrids(DynUNet):
    """Gives each supervised level on its own grid, MONAI enlarges and stacks them; drops no logits, as MONAI does."""

    def get_output_block(self, idx: int) -> UnetOutBlock:
        """Of level ``idx``, from its features to logits."""
        return UnetOutBlock(self.spatial_dims, self.filters[idx], self.out_channels)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, *S); in training with deep supervision a list, full resolution first."""
        logits: Tensor = self.output_block(self.skip_layers(x))
        coarse = list(self.heads)
        # MONAI keeps the last outputs; a tensor with a graph can neither be copied (weight averaging) nor freed.
        self.heads[:] = [torch.empty(0)] * len(coarse)
        return [logits, *coarse] if self.training and self.deep_supervision else logits


class Residual(SegResNet):
    """Takes strides, one a level below the first, per axis: MONAI halves all axes."""

    def __init__(self, *args: Any, strides: Sequence[Sequence[int]], **options: Any) -> None:
        super().__init__(*args, **options)
        for down, up, stride in zip(self.down_layers[1:], reversed(self.up_samples), strides, strict=True):
            restride(down, stride)
            restride(up, stride)


def as_monai(layer: Layer) -> str | tuple[object, ...]:
    """A layer as MONAI's signatures have it: a configuration gives lists."""
    return layer if isinstance(layer, str) else tuple(layer)


def to_instance_norm(module: nn.Module, kind: type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]) -> None:
    """Replaces every batch normalisation inside ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
            setattr(module, name, kind(child.num_features, affine=True))
        else:
            to_instance_norm(child, kind)
