"""MONAI's networks as functions ``f(in_channels, out_channels, dims, …) -> Network``.

None uses batch normalisation: small batches make it unsteady, and its results depend on the number of processes.
A layer is named as MONAI does, ``"relu"`` or ``["leakyrelu", {"negative_slope": 0.01}]``. ``in_channels`` are those of
the image, ``out_channels`` the classes, background included, ``dims`` 2 or 3. Arguments that do not suit each other
raise a ConfigError that names them.
"""

import math
from collections.abc import Sequence

from monai.networks.blocks import Convolution, ResidualUnit, UnetrBasicBlock, UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from monai.networks.blocks.segresnet_block import ResBlock
from monai.networks.nets import AttentionUnet, SwinUNETR, UNet
from monai.networks.nets.attentionunet import AttentionLayer, ConvBlock
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from seg.errors import ConfigError
from seg.models.adapted import Layer, NestedUNet, OwnGrids, Residual, as_monai, to_instance_norm
from seg.models.contract import Network

Stride = int | Sequence[int]  # for all axes, or per axis
INSTANCE: Layer = ("instance", {"affine": True})
LEAKY: Layer = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})


def unet(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    channels: Sequence[int] = (32, 64, 128, 256),  # per level, the bottom last
    strides: Sequence[Stride] = (2, 2, 2),  # one fewer than ``channels``, each one number or one per axis
    num_res_units: int = 1,  # convolutions of a residual unit; 0: plain convolutions
    kernel_size: int = 3,  # of the convolutions, odd
    up_kernel_size: int = 3,  # of the transposed convolutions, odd
    norm: Layer = INSTANCE,
    act: Layer = LEAKY,
    dropout: float = 0.0,  # share of values, 0 … 1
) -> Network:
    """U-Net with residual units; its first convolution is strided, so that no wide layer runs at full resolution.

    That makes it several times cheaper than a U-Net that starts at full resolution. The last transposed convolution
    brings the logits back to full resolution.

    Source: Kerfoot et al., Left-ventricle quantification using residual U-Net, STACOM 2018.
    """
    steps = _per_axis(strides, dims, len(channels) - 1)
    body: nn.Module = UNet(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        strides=steps,  # type: ignore[arg-type]  # MONAI takes one per axis, too
        kernel_size=kernel_size,
        up_kernel_size=up_kernel_size,
        num_res_units=num_res_units,
        norm=as_monai(norm),
        act=as_monai(act),
        dropout=dropout,
    )
    blocks = _modules(body, ResidualUnit if num_res_units else Convolution)
    return Network(body, blocks, in_channels=in_channels, dims=dims, multiple=_multiple(steps))


def unetpp(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128, 256, 16),  # five levels, then the last node at full resolution
    strides: Sequence[Stride] = (2, 2, 2, 2),  # of the levels below the first, each one number or one per axis
    deep_supervision: bool = False,  # in training, logits of all four nested decoders, deepest first
    norm: Layer = INSTANCE,
    act: Layer = LEAKY,
    dropout: float = 0.0,  # share of values, 0 … 1
) -> Network:
    """U-Net++: nested decoders of growing depth, joined by dense skips.

    Source: Zhou et al., UNet++: a nested U-Net architecture for medical image segmentation, DLMIA 2018.
    """
    if len(channels) != 6:
        raise ConfigError(
            f"model.channels has {len(channels)} entries; unetpp takes six: five levels and the last node."
        )
    steps = _per_axis(strides, dims, 4)
    body = NestedUNet(
        dims,
        in_channels,
        out_channels,
        tuple(channels),
        deep_supervision,
        act=as_monai(act),
        norm=as_monai(norm),
        dropout=dropout,
        strides=steps,
    )
    multiple = _multiple(steps)
    return Network(body, _modules(body, TwoConv), in_channels=in_channels, dims=dims, multiple=multiple)


def attention_unet(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128, 256),  # per level, the bottom last
    strides: Sequence[Stride] = (2, 2, 2, 2),  # one fewer than ``channels``, each one number or one per axis
    kernel_size: int = 3,  # of the convolutions, odd
    up_kernel_size: int = 3,  # of the transposed convolutions, odd
    dropout: float = 0.0,  # share of values, 0 … 1
) -> Network:
    """U-Net whose skips pass through gates that the decoder steers.

    MONAI builds it with batch normalisation only; that is replaced by instance normalisation here.

    Source: Oktay et al., Attention U-Net: learning where to look for the pancreas, MIDL 2018.
    """
    steps = _per_axis(strides, dims, len(channels) - 1)
    body = AttentionUnet(
        dims,
        in_channels,
        out_channels,
        tuple(channels),
        steps,  # type: ignore[arg-type]  # MONAI takes one per axis, too
        kernel_size,
        up_kernel_size,
        dropout=dropout,
    )
    to_instance_norm(body, nn.InstanceNorm3d if dims == 3 else nn.InstanceNorm2d)
    merges = [layer.merge for layer in body.modules() if isinstance(layer, AttentionLayer)]
    blocks = [*_modules(body, ConvBlock), *merges]
    return Network(body, blocks, in_channels=in_channels, dims=dims, multiple=_multiple(steps))


def segresnet(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    width: int = 16,  # channels at full resolution, doubled at each level; a multiple of ``groups``
    blocks_down: Sequence[int] = (1, 2, 2, 4),  # residual blocks per encoder level
    blocks_up: Sequence[int] = (1, 1, 1),  # residual blocks per decoder level, one level fewer
    strides: Sequence[Stride] = (2, 2, 2),  # one fewer than ``blocks_down``, each one number or one per axis
    groups: int = 8,  # of the normalisation
    dropout: float = 0.0,  # share of channels after the first convolution, 0 … 1
) -> Network:
    """Residual encoder, deeper than its decoder, with group normalisation and linear upsampling.

    Source: Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes
    2018 (without the VAE branch).
    """
    if len(blocks_up) != len(blocks_down) - 1:
        raise ConfigError(
            f"model.blocks_up={list(blocks_up)} must have one entry fewer than blocks_down={list(blocks_down)}."
        )
    if width % groups:
        raise ConfigError(f"model.width={width} must be a multiple of model.groups={groups}.")
    steps = _per_axis(strides, dims, len(blocks_up))
    body = Residual(
        dims,
        width,
        in_channels,
        out_channels,
        dropout_prob=dropout or None,
        norm=("group", {"num_groups": groups}),
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        strides=steps,
    )
    return Network(body, _modules(body, ResBlock), in_channels=in_channels, dims=dims, multiple=_multiple(steps))


def dynunet(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    strides: Sequence[Stride],  # per level, the first at full resolution (1), each one number or one per axis
    width: int = 32,  # channels at full resolution, doubled at each level
    max_width: int = 320,  # most channels of a level; nnU-Net takes 320 in 3-D, 512 in 2-D
    kernel_size: int = 3,  # of the convolutions, odd
    residual: bool = False,  # residual blocks in place of plain ones
    deep_supervision: bool = True,  # in training, logits of the coarser decoder levels too, but the coarsest
    norm: Layer = INSTANCE,
    act: Layer = LEAKY,
    dropout: float = 0.0,  # share of values, 0 … 1
) -> Network:
    """nnU-Net's U-Net: as many levels as the patch allows, halved only along axes that are fine and long enough.

    Source: Isensee et al., nnU-Net, Nature Methods 18, 2021.
    """
    steps = _per_axis(strides, dims, len(strides))
    if len(steps) < 3:
        raise ConfigError(
            f"model.strides has {len(steps)} levels; dynunet takes at least 3. A larger data.patch gives more."
        )
    if any(step != 1 for step in steps[0]):
        raise ConfigError(
            f"model.strides begins with {steps[0]}; of dynunet it must begin with 1, the full resolution."
        )
    body = OwnGrids(
        dims,
        in_channels,
        out_channels,
        kernel_size=[kernel_size] * len(steps),
        strides=steps,
        upsample_kernel_size=steps[1:],
        filters=[min(width * 2**level, max_width) for level in range(len(steps))],
        dropout=dropout or None,
        norm_name=as_monai(norm),
        act_name=as_monai(act),
        deep_supervision=deep_supervision,
        deep_supr_num=max(1, len(steps) - 3),
        res_block=residual,
    )
    blocks = _modules(body, (UnetBasicBlock, UnetResBlock))
    return Network(body, blocks, in_channels=in_channels, dims=dims, multiple=_multiple(steps))


def swin_unetr(
    in_channels: int,
    out_channels: int,
    dims: int,
    *,
    width: int = 24,  # features of the first stage, a multiple of 12
    depths: Sequence[int] = (2, 2, 2, 2),  # transformer blocks per stage
    num_heads: Sequence[int] = (3, 6, 12, 24),  # attention heads per stage
    window_size: int = 7,  # of the attention, in tokens per axis
    dropout: float = 0.0,  # share of features, 0 … 1
    drop_path: float = 0.0,  # share of residual paths dropped, 0 … 1
) -> Network:
    """Swin transformer encoder with a convolutional decoder.

    Source: Hatamizadeh et al., Swin UNETR, BrainLes 2021.
    """
    if width % 12:
        raise ConfigError(f"model.width={width} must be a multiple of 12 for swin_unetr.")
    body = SwinUNETR(
        in_channels,
        out_channels,
        depths=tuple(depths),
        num_heads=tuple(num_heads),
        window_size=window_size,
        feature_size=width,
        drop_rate=dropout,
        dropout_path_rate=drop_path,
        spatial_dims=dims,
    )
    blocks = _modules(body, (UnetrBasicBlock, UnetrUpBlock))
    return Network(body, blocks, in_channels=in_channels, dims=dims, multiple=(32,) * dims)


def _modules(body: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[nn.Module]:
    return [module for module in body.modules() if isinstance(module, kind)]


def _per_axis(strides: Sequence[Stride], dims: int, count: int) -> list[tuple[int, ...]]:
    """Every stride with one number per axis."""
    if len(strides) != count:
        raise ConfigError(
            f"model.strides has {len(strides)} entries; this network takes {count}, one a level below the first."
        )
    steps = [(stride,) * dims if isinstance(stride, int) else tuple(stride) for stride in strides]
    if any(len(step) != dims for step in steps):
        raise ConfigError(f"model.strides={strides} has an entry that is not one number or {dims} (dims={dims}).")
    return steps


def _multiple(steps: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What sizes are divided by in all, per axis."""
    return tuple(map(math.prod, zip(*steps, strict=True)))
