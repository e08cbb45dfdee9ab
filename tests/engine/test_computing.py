"""Precision and layout: what is left open, what a measurement chooses, and that it is made once."""

import pytest
import torch

from seg.engine import computing, device
from seg.engine.device import Precision, choose_precision
from seg.models import unet

CPU = torch.device("cpu")
BF16, FP32 = Precision(CPU, torch.bfloat16), Precision(CPU, None)
SHAPE = (2, 1, 16, 16, 16)


@pytest.fixture
def network():
    return unet(1, 2, 3, channels=[4, 8], strides=[2])


@pytest.mark.parametrize(
    ("chosen", "precision", "layout", "open_"),
    [
        (FP32, "auto", "auto", ["fp32 contiguous", "fp32 channels_last"]),
        (BF16, "bf16", "auto", ["bf16 contiguous", "bf16 channels_last"]),
        (BF16, "auto", "auto", ["bf16 contiguous", "bf16 channels_last", "fp32 contiguous", "fp32 channels_last"]),
        (BF16, "auto", "channels_last", ["bf16 channels_last"]),
        (Precision(torch.device("mps"), None), "auto", "auto", ["fp32 contiguous"]),
    ],
)
def test_what_the_options_leave_open(chosen, precision, layout, open_):
    ways = computing.ways_to_compute(chosen, precision, layout)
    assert [f"{way.name} {way.layout}" for way in ways] == open_


@pytest.mark.parametrize(
    ("seconds", "best"), [([1.0, 0.5], "channels_last"), ([1.0, 2.0], "contiguous"), ([1.0, 0.97], "contiguous")]
)
def test_the_faster_way_is_taken_and_the_usual_one_in_a_tie(network, seconds, best, tmp_path, monkeypatch):
    monkeypatch.setattr(computing, "_measured", lambda *_: seconds)
    ways = computing.ways_to_compute(FP32, "auto", "auto")
    number, why = computing.fastest(ways, network, SHAPE, tmp_path / "kept.json", {})
    assert ways[number].layout == best
    assert f"fp32 {best}" in why


def test_a_measurement_is_made_once_for_a_machine_a_network_and_a_batch(network, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(computing, "_measured", lambda *_: [calls.append(1) or 1.0, 0.5])
    ways = computing.ways_to_compute(FP32, "auto", "auto")

    def choose(shape=SHAPE, about="unet"):
        return computing.fastest(ways, network, shape, tmp_path / "kept.json", {"model": about})

    assert choose() == choose()
    assert len(calls) == 1
    choose(shape=(2, 1, 32, 16, 16))
    choose(about="unetpp")
    monkeypatch.setattr(computing, "machine", lambda _: "another")
    choose()
    assert len(calls) == 4
    whole = (tmp_path / "kept.json").read_text()
    damaged = [
        "damaged",
        "null",
        "[]",
        whole[:-9],
        whole.replace("[\n   1.0", "[\n   null"),
        whole.replace("seconds", "s"),
    ]
    for count, content in enumerate(damaged, 5):
        (tmp_path / "kept.json").write_text(content)
        choose()
        assert len(calls) == count, content


def test_measuring_leaves_network_and_random_numbers_as_they_were(network, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    computing.fastest(computing.ways_to_compute(FP32, "auto", "auto"), network, SHAPE, tmp_path / "kept.json", {})
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_channels_last_changes_where_numbers_lie_and_not_what_comes_out(network):
    image = torch.randn(SHAPE)
    usual = network(image)
    computing.laid_out(network, Precision(CPU, None, "channels_last"))
    kernels = [weight for weight in network.parameters() if weight.ndim == 5]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last_3d) for kernel in kernels)
    torch.testing.assert_close(network(image), usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("capability", "flags", "name"),
    [
        ("AVX2", "avx2", "fp32"),
        ("AVX512", "avx512f", "fp32"),
        ("AVX512", "avx512_bf16", "bf16"),
        ("AVX2", "amx_bf16", "fp32"),
    ],
)
def test_a_processor_takes_bf16_only_where_it_has_instructions_for_it(capability, flags, name, monkeypatch):
    monkeypatch.setattr(device, "_cpuinfo", lambda: f"flags : {flags}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert choose_precision("auto", CPU).name == name
