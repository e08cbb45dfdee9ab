"""The model contract, held by every option of conf/model."""

import copy

import pytest
import torch
from options import names, small_network, smallest

from seg import models
from seg.errors import ConfigError

MODELS = names("model")
BOTH = pytest.mark.parametrize("dims", [2, 3])
EACH = pytest.mark.parametrize("name", MODELS)


def _image(network, batch=2):
    return torch.randn(batch, network.in_channels, *smallest(network))


@EACH
@BOTH
def test_logits_have_the_size_of_the_image(name, dims):
    torch.manual_seed(0)
    network = small_network(name, dims).eval()
    image = _image(network)
    with torch.no_grad():
        logits = network(image)
    assert logits.shape == (2, 3, *image.shape[2:])


@EACH
def test_samples_of_a_batch_do_not_mix_even_in_training_mode(name):
    torch.manual_seed(0)
    network = small_network(name, 2)
    image = _image(network, 3)
    order = [2, 0, 1]
    with torch.no_grad():
        logits, permuted = network(image), network(image[order])
    if isinstance(logits, list):
        logits, permuted = logits[0], permuted[0]
    torch.testing.assert_close(permuted, logits[order], rtol=1e-4, atol=1e-4)


@EACH
def test_dropout_drops_features_and_no_logits(name):
    torch.manual_seed(0)
    network = small_network(name, 2, dropout=0.5)
    image = _image(network)
    with torch.no_grad():
        first, second = (found[0] if isinstance(found := network(image), list) else found for _ in range(2))
    assert not torch.equal(first, second)
    assert (first == 0).sum() < first.numel() / 100


@EACH
@BOTH
def test_refuses_sizes_it_cannot_take(name, dims):
    network = small_network(name, dims)
    wrong = [smallest(network)[0], *(size + 1 for size in network.multiple[1:])]
    with pytest.raises(ConfigError, match=r"multiples of .*data\.patch"):
        network(torch.zeros(1, 2, *wrong))
    with pytest.raises(ConfigError, match="at least two"):
        network(torch.zeros(1, 2, *network.multiple))
    with pytest.raises(ConfigError, match=f"takes {dims} axes"):
        network(torch.zeros(1, 2, *smallest(network), 16))


@EACH
def test_same_seed_same_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(small_network(name, 2).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@EACH
def test_weights_can_be_averaged_and_restored_after_a_step(name):
    network = small_network(name, 2).train()
    image = _image(network)
    network(image)
    twin = copy.deepcopy(network)
    assert twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(image), network.eval()(image))


@EACH
def test_has_no_batch_normalisation(name):
    network = small_network(name, 3)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", [name for name in MODELS if name in ("dynunet", "unetpp")])
@BOTH
def test_deep_supervision_gives_full_resolution_first(name, dims):
    network = small_network(name, dims, deep_supervision=True)
    image = _image(network)
    heads = network.train()(image)
    assert isinstance(heads, list)
    assert len(heads) > 1
    assert heads[0].shape[2:] == image.shape[2:]
    sizes = [head.shape[2:].numel() for head in heads]
    assert sizes == sorted(sizes, reverse=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), heads[0])


@pytest.mark.parametrize("supervised", [True, False])
def test_unetpp_gives_the_deepest_decoder_first(supervised):
    network = small_network("unetpp", 2, deep_supervision=supervised)
    for parameter in network.body.final_conv_0_4.parameters():
        torch.nn.init.zeros_(parameter)
    heads = network.train()(_image(network))
    assert not (heads[0] if supervised else heads).any()
    assert not network.eval()(_image(network)).any()


def test_default_unet_is_the_strided_one_of_2_4_million_parameters():
    network = models.unet(1, 3, 3)
    assert models.parameter_count(network) == pytest.approx(2.39e6, rel=0.005)
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    assert (first.out_channels, first.stride) == (32, (2, 2, 2))
    assert network.multiple == (8, 8, 8)


@pytest.mark.parametrize(
    ("strides", "multiple"), [([[2, 2, 1], 2, [1, 2, 2]], (4, 8, 4)), ([2, 2, 2], (8, 8, 8)), ([1, 2, 2], (4, 4, 4))]
)
def test_strides_per_axis(strides, multiple):
    network = models.unet(1, 2, 3, channels=[4, 8, 8, 8], strides=strides)
    assert network.multiple == multiple
    size = [2 * m for m in multiple]
    assert network(torch.randn(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize(
    ("build", "arguments", "says"),
    [
        (models.unet, {"strides": [2, 2]}, "2 entries; this network takes 3"),
        (models.unet, {"strides": [2, 2, [2, 2]]}, "one number or 3"),
        (models.attention_unet, {"strides": [2]}, "1 entries; this network takes 4"),
        (models.unetpp, {"channels": [8, 8]}, "takes six"),
        (models.segresnet, {"width": 12}, "multiple of model.groups"),
        (models.segresnet, {"blocks_up": [1]}, "one entry fewer"),
        (models.dynunet, {"strides": [1, 2]}, "at least 3"),
        (models.dynunet, {"strides": [2, 2, 2]}, "must begin with 1"),
        (models.swin_unetr, {"width": 20}, "multiple of 12"),
    ],
)
def test_wrong_arguments_are_explained(build, arguments, says):
    with pytest.raises(ConfigError, match=says):
        build(1, 2, 3, **arguments)


def test_dynunet_levels_and_widths_are_nnunets():
    network = models.dynunet(1, 2, 3, strides=[1, 2, 2, 2, 2])
    widths = [block.conv2.conv.out_channels for block in network.blocks[:5]]
    assert sorted(set(widths)) == [32, 64, 128, 256, 320]
