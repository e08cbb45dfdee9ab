"""A trained network as a file for other software: ONNX, or PyTorch's own ``pt2``; checked against the network itself.

The file is the network alone, in float32, on windows of one size. What has to be done before and after it is written
beside it (``contract.json``) and in it, and an example scan leads through each step.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from seg.config.content import first_line
from seg.data.cases import Case
from seg.data.nifti import write_volume
from seg.data.preprocess import prepare_case
from seg.data.volumes import write_label
from seg.deploy.instructions import instructions
from seg.deploy.package import Json, made_up
from seg.deploy.predictor import Predictor
from seg.engine.device import Precision
from seg.engine.predictors import case_predictor
from seg.errors import ConfigError, DataError
from seg.files import atomic_folder
from seg.models import Network

log = logging.getLogger(__name__)
NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "pt2": ()}
LOGITS = 1e-3  # how far a logit may differ, as a share of the largest
VOXELS = 1e-4  # share of a scan's voxels that may have another class
CONTRACT, SCAN, MASK, STEPS = "contract.json", "example.nii.gz", "example_mask.nii.gz", "example_steps.npz"
_FINER, _BORDER = 0.8, 2  # the example's voxels beside the planned ones; its border of zeros, in voxels
Answer = Callable[[Tensor], Tensor]


def check_format(kind: str) -> None:
    """Refuses a format that there is not, or that needs what is not installed.

    Raises:
        ConfigError: with what to type.
    """
    if kind not in NEEDS:
        raise ConfigError(f"format is {kind}; it must be one of {', '.join(NEEDS)}.")
    if missing := [name for name in NEEDS[kind] if not find_spec(name)]:
        raise ConfigError(f"format={kind} needs {', '.join(missing)}: pip install 'seg[{kind}]'. format=pt2 does not.")


def export(predictor: Predictor, place: Path, kind: str, scans: Sequence[Case] = ()) -> Json:
    """Writes the folder ``place``, whole or not at all; what the check found, as ``contract.json`` has it.

    Args:
        predictor: of a run or a package.
        place: a new folder: ``network.onnx`` or ``network.pt2``, ``contract.json`` and the example.
        kind: ``onnx`` or ``pt2``.
        scans: on which masks are compared, besides the example.

    Raises:
        ConfigError: as ``check_format``; or the network cannot be exported so.
        DataError: there is something at ``place``; a scan cannot be read; or the file answers otherwise than the
            network.
    """
    check_format(kind)
    if place.exists():
        raise DataError(f"{place} exists already. Choose another folder for output, or remove it.")
    own = _in_float32(predictor)
    with atomic_folder(place) as draft:
        about = instructions(predictor.package, kind)
        _write(own.network, predictor.package.plan.patch, draft / f"network.{kind}", about)
        beside = _Beside(own.network, opened(draft / f"network.{kind}"))
        like = own.network
        network = Network(beside, (), in_channels=like.in_channels, dims=like.dims, multiple=like.multiple)
        other = replace(own, network=network.eval())
        example = _write_example(predictor, draft)
        write_label(draft / MASK, other(example).mask, like=example)
        _write_steps(predictor, beside, example, draft / STEPS)
        some = beside.last[0]
        for windows in (some, torch.cat([some, some.flip(-1)]), torch.cat([some, some.flip(-1), some.roll(1, -1)])):
            beside(windows)
        cases = [Case("example", "", (example,), None), *scans]
        checked = [_compared(predictor, own, other, case, number) for number, case in enumerate(cases)]
        about["check"] = found = beside.found() | {"voxels_may_differ": VOXELS, "scans": checked}
        _refuse(found, kind)
        (draft / CONTRACT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    return found


def opened(path: Path) -> Answer:
    """What a file answers to windows (B, C, *patch): logits (B, K, *patch), both float32, on the CPU."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module().forward  # a module of this kind refuses eval()
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda windows: torch.from_numpy(session.run(["logits"], {"image": windows.numpy()})[0])


class _Beside(nn.Module):
    """Answers as the exported file does, and keeps how far that is from what the network itself answers."""

    def __init__(self, network: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.network, self.answer = network, answer
        self.difference = self.largest = 0.0
        self.last = torch.empty(0), torch.empty(0)

    @torch.no_grad()
    def forward(self, windows: Tensor) -> Tensor:
        logits, wanted = self.answer(windows.contiguous()), self.network(windows)
        # np.maximum keeps a NaN, which max drops.
        self.difference = float(np.maximum(self.difference, float((logits - wanted).abs().max())))
        self.largest = float(np.maximum(self.largest, float(wanted.abs().max())))
        self.last = windows[:1], logits[:1]
        return logits

    def found(self) -> Json:
        return {"logit_difference": self.difference, "largest_logit": self.largest, "logits_may_differ": LOGITS}


def _in_float32(predictor: Predictor) -> Predictor:
    """The same on the CPU, in float32, with kernels in memory as PyTorch makes them."""
    network, plain = copy.deepcopy(predictor.network).to("cpu", torch.float32), Precision(torch.device("cpu"), None)
    for weight in network.parameters():
        weight.data = weight.data.contiguous()
    settings = OmegaConf.create(predictor.package.settings)
    predict = case_predictor(settings, predictor.package.plan, plain, predictor.package.within)
    return replace(predictor, network=network, precision=plain, predict=predict)


def _write(network: Network, patch: Sequence[int], path: Path, about: Json) -> None:
    """The network as a graph, for any number of windows of ``patch``; it carries its contract."""
    windows = torch.zeros(2, network.in_channels, *patch)
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            graph = torch.export.export(network, (windows,), dynamic_shapes=({0: batch},), strict=False)
            if path.suffix == ".pt2":
                torch.export.save(graph, path, extra_files={CONTRACT: json.dumps(about)})
                return
            program = torch.onnx.export(
                graph,
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: "batch"},),
                input_names=["image"],
                output_names=["logits"],
            )
            assert program is not None
            program.model.metadata_props[CONTRACT] = json.dumps(about)
            program.save(path)
    except Exception as error:  # of the tracer, of the translation to ONNX, of an operation that ONNX lacks
        raise ConfigError(
            f"This network cannot be exported as {path.suffix[1:]}: {type(error).__name__}: {first_line(error)}. "
            "Pass on a package instead (docs/use.md), which needs no translation."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say to their developers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _write_example(predictor: Predictor, folder: Path) -> Path:
    """A made-up scan that needs every step: axes to turn, a border to crop, voxels to resample, a side to pad.

    And a corner of 0 within what the crop keeps, for steps that look at the imaged object alone.
    """
    plan = predictor.package.plan
    sides = list(plan.patch)
    if len(sides) == 2:
        sides.insert(plan.slice_axis, 3)
    longer = max(range(3), key=lambda axis: sides[axis])
    prepared = [1.5 * side if axis == longer else max(side - 2, 1) for axis, side in enumerate(sides)]
    image = made_up(len(plan.normalization), tuple(round(side / _FINER) for side in prepared)).numpy()
    for channel, norm in zip(image, plan.normalization, strict=True):
        channel[:] = channel * norm.std + norm.mean if norm.kind == "ct" else channel + 10
    image[:, :2, :2] = 0
    image = np.pad(image, [(0, 0), *[(_BORDER, _BORDER)] * 3])
    affine = np.diag([*(-_FINER * np.array(plan.spacing_mm) * [1, 1, -1]), 1.0])
    write_volume(folder / SCAN, np.moveaxis(image, 0, -1) if len(image) > 1 else image[0], affine)
    return folder / SCAN


def _write_steps(predictor: Predictor, beside: _Beside, example: Path, path: Path) -> None:
    """The example after its preparation, the last window of it, and some logits of that."""
    package = predictor.package
    prepared, _, _ = prepare_case(Case("example", "", (example,), None), (*package.classes.values(),), package.plan)
    window, logits = (tensor.numpy() for tensor in beside.last)
    every = (slice(None), slice(None), *[slice(None, None, 4)] * len(package.plan.patch))
    np.savez_compressed(path, prepared=prepared, window=window, every_fourth_logit=logits[every])


def _compared(trained: Predictor, own: Predictor, other: Predictor, case: Case, number: int) -> Json:
    """How many voxels of one scan have another class than by the network itself, in float32 and as it was trained."""
    mask, wanted = other(*case.images).mask, own(*case.images).mask
    found = {"scan": number, "voxels": mask.size, "differing": int((mask != wanted).sum())}
    if trained.precision != own.precision:
        found[f"differing_from_{trained.precision.name}"] = int((mask != trained(*case.images).mask).sum())
    log.info("%s: %d of %d voxels have another class", case.id, found["differing"], found["voxels"])
    return found


def _refuse(found: Json, kind: str) -> None:
    """Refuses a file that differs from its network by more than rounding.

    Raises:
        DataError: with the differences and what is allowed.
    """
    close = found["logit_difference"] <= LOGITS * found["largest_logit"] < np.inf  # not of NaN
    other = [scan for scan in found["scans"] if scan["differing"] > max(1, VOXELS * scan["voxels"])]
    if other or not close:
        worst = max(scan["differing"] / scan["voxels"] for scan in found["scans"])
        raise DataError(
            f"The network as {kind} does not answer as the network itself: a logit differs by up to "
            f"{found['logit_difference']:.2g}, of logits up to {found['largest_logit']:.3g} (allowed: {LOGITS:.1%} of "
            f"that), and up to {worst:.3%} of a scan's voxels have another class (allowed: {VOXELS:.2%}). Nothing was "
            "written. Pass on a package instead (docs/use.md)."
        )
