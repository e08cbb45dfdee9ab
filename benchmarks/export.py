"""ONNX Runtime beside PyTorch: seconds of one window of each network, on the same number of threads, in turn.

``python -m benchmarks.export [model …]``. Float32 on the CPU, the default network of each option in 3-D, one channel,
three classes, random weights (they do not change the time). A ratio is of the medians of one run: above 1, ONNX Runtime
is slower. PyTorch computes in the layout of memory that is faster on this machine.
"""

import copy
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from seg.config.build import build
from seg.config.content import plain
from seg.config.options import CONF
from seg.engine.computing import laid_out
from seg.engine.device import Precision
from seg.models import Network

TURNS, PATCH = 7, (32, 64, 32)
MODELS = ("unet", "dynunet", "segresnet", "attention_unet")
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]  # of dynunet, which its plan chooses


def default(model: str) -> Network:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        section = plain(OmegaConf.create({"model": compose("train", overrides=[f"model={model}"]).model}))["model"]
    if section.get("strides") == "auto":
        section["strides"] = STRIDES
    network: Network = build(section, in_channels=1, out_channels=3, dims=3)
    return network.eval()


def by_onnxruntime(network: Network, path: Path) -> Callable[[Tensor], object]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(network, (torch.zeros(1, 1, *PATCH),), dynamo=True, verbose=False)
    assert program is not None
    program.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window.numpy()})


@torch.no_grad()
def main() -> None:
    print(f"one window of {'×'.join(map(str, PATCH))}, {torch.get_num_threads()} threads, median of {TURNS} turns")
    window = torch.randn(1, 1, *PATCH)
    for model in sys.argv[1:] or MODELS:
        torch.manual_seed(0)
        network = default(model)
        ways: list[Callable[[Tensor], object]] = [
            laid_out(copy.deepcopy(network), Precision(torch.device("cpu"), None, layout))
            for layout in ("contiguous", "channels_last")
        ]
        with tempfile.TemporaryDirectory() as folder:
            ways.append(by_onnxruntime(network, Path(folder) / "network.onnx"))
        seconds: list[list[float]] = [[] for _ in ways]
        for turn in range(TURNS + 1):  # the first of each does not count
            for way, spent in zip(ways, seconds, strict=True):
                begin = time.perf_counter()
                way(window)
                if turn:
                    spent.append(time.perf_counter() - begin)
        contiguous, last, onnx = map(median, seconds)
        print(
            f"{model}: PyTorch {contiguous:.3f} s contiguous, {last:.3f} s channels_last; ONNX Runtime {onnx:.3f} s, "
            f"{onnx / min(contiguous, last):.2f} of PyTorch's faster one",
            flush=True,
        )


if __name__ == "__main__":
    main()
