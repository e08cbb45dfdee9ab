"""Every attention option in every model option: all together in the slow tier, each pair in the default one."""

import copy
import itertools

import pytest
import torch
from options import attention_block, names, small_network, smallest

from seg.errors import ConfigError
from seg.models import insert_attention, parameter_count
from seg.models.insertion import PLACES, _places

MODELS = names("model")
BLOCKS = names("attention")
PLACED = [name for name in BLOCKS if name != "none"]
ALL = list(itertools.product(MODELS, PLACED, [2, 3], PLACES))
# Each model with each block, in 2-D or 3-D and at each place in turn; each model in 2-D and in 3-D.
COVER = [
    (model, block, (2, 3)[(m + b) % 2], PLACES[(m + b // 2) % 4])
    for (m, model), (b, block) in itertools.product(enumerate(MODELS), enumerate(BLOCKS))
]


def _train_once(model, block, dims, where):
    torch.manual_seed(0)
    network = small_network(model, dims)
    plain = parameter_count(network)
    if block != "none":
        insert_attention(network, attention_block(block)[0], where)
        assert parameter_count(network) > plain
    image = torch.randn(1, network.in_channels, *smallest(network))
    heads = network.train()(image)
    heads = heads if isinstance(heads, list) else [heads]
    assert heads[0].shape == (1, 3, *image.shape[2:])
    sum((head.float() ** 2).mean() for head in heads).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


@pytest.mark.parametrize(("model", "block", "dims", "where"), COVER)
def test_every_model_trains_with_every_block(model, block, dims, where):
    _train_once(model, block, dims, where)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "block", "dims", "where"), [case for case in ALL if case not in COVER])
def test_every_model_trains_with_every_block_everywhere(model, block, dims, where):
    _train_once(model, block, dims, where)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dims", [2, 3])
def test_parts_are_a_partition_and_the_bottleneck_the_coarsest(model, dims):
    network = small_network(model, dims)
    places = _places(network)
    assert {place.part for place in places} == {"encoder", "bottleneck", "decoder"}
    assert len({id(place.block) for place in places}) == len(places)
    parts = {}
    for where in PLACES:
        twin = copy.deepcopy(network)
        insert_attention(twin, lambda channels, dims: torch.nn.Conv1d(channels, 1, 1), where)
        parts[where] = sum(isinstance(m, torch.nn.Conv1d) for m in twin.modules())
    assert parts["all"] == len(places) == parts["encoder"] + parts["decoder"] + parts["bottleneck"]


def test_nested_nodes_of_unetpp_are_decoder():
    network = small_network("unetpp", 2)
    names_of = {id(module): name for name, module in network.body.named_modules()}
    part = {names_of[id(place.block)]: place.part for place in _places(network)}
    assert {name: p for name, p in part.items() if name.startswith("upcat")} == {
        name: "decoder" for name in part if name.startswith("upcat")
    }
    assert part["conv_0_0"] == "encoder"
    assert part["conv_4_0.convs"] == "bottleneck"
    assert len(part) == 15


def test_logits_get_no_attention():
    for units in (0, 2):
        network = small_network("unet", 3, num_res_units=units)
        assert [place.channels for place in _places(network)] == [4, 8, 16, 32, 8, 4]


@pytest.mark.parametrize("model", MODELS)
def test_a_gate_of_one_changes_nothing(model):
    """The block stands behind every feature block: an identity changes nothing, a shift of any one the logits."""
    torch.manual_seed(0)
    network = small_network(model, 2).eval()
    image = torch.randn(1, 2, *smallest(network))
    with torch.no_grad():
        before = network(image)
        insert_attention(network, lambda channels, dims: _Gate(), "all")
        torch.testing.assert_close(network(image), before, rtol=0, atol=0)
        for gate in [m for m in network.modules() if isinstance(m, _Gate)]:
            gate.factor, gate.offset = 0.0, 1.0
            assert not torch.equal(network(image), before)
            gate.factor, gate.offset = 1.0, 0.0


class _Gate(torch.nn.Module):
    factor, offset = 1.0, 0.0

    def forward(self, x):
        return x * self.factor + self.offset


@pytest.mark.parametrize("model", MODELS)
def test_same_seed_same_weights_and_they_can_be_restored(model):
    twins = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        twins.append(insert_attention(small_network(model, 2), attention_block("cbam")[0], "all"))
    first, second, other = (twin.state_dict() for twin in twins)
    assert all(torch.equal(first[key], second[key]) for key in first)
    twins[2].load_state_dict(first)
    assert all(torch.equal(first[key], other[key]) for key in first)


def test_unknown_place_and_missing_part_are_explained():
    with pytest.raises(ConfigError, match=r"attention\.where is 'middle'; it must be one of encoder"):
        insert_attention(small_network("unet", 2), attention_block("se")[0], "middle")
    flat = small_network("unet", 2, channels=[4, 4], strides=[1])
    with pytest.raises(ConfigError, match="no such block"):
        insert_attention(flat, attention_block("se")[0], "encoder")
