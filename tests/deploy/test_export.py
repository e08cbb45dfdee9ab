"""An exported network: it answers as the run does, without seg or PyTorch, or it is refused and nothing is written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from options import attention_block, load, names, small_network, smallest

from seg.data.cases import Case
from seg.deploy import Predictor
from seg.deploy.export import export, opened
from seg.deploy.instructions import instructions
from seg.errors import ConfigError, DataError
from seg.models import Network, insert_attention

ROOT = Path(__file__).parents[2]
MODELS, BLOCKS = names("model"), names("attention")
# Each network in 2-D and 3-D, each with another block; and each block in the default network.
MIXED = [(model, dims, BLOCKS[(n + dims) % len(BLOCKS)]) for n, model in enumerate(MODELS) for dims in (2, 3)]


@pytest.fixture(scope="module")
def predictor(whole: tuple[Path, Any]) -> Predictor:
    outputs, result = whole
    return Predictor.load(outputs / "runs" / result.predictions.name)


@pytest.mark.slow
def test_pt2_predicts_as_the_run_without_seg_or_monai(predictor: Predictor, phantom_root: Path, tmp_path: Path) -> None:
    scan = min((phantom_root / "imagesTr").glob("*.nii.gz"))
    found = export(predictor, tmp_path / "out", "pt2", [Case("one", "", (scan,), None)])
    assert [part["differing"] for part in found["scans"]] == [0, 0]
    assert found["logit_difference"] <= 1e-4 * found["largest_logit"]
    code = (
        "import sys, json, torch, numpy as np\n"
        "files = {'contract.json': ''}\n"
        "network = torch.export.load(sys.argv[1] + '/network.pt2', extra_files=files).module()\n"
        "steps = np.load(sys.argv[1] + '/example_steps.npz')\n"
        "logits = network(torch.from_numpy(steps['window'])).detach().numpy()[:, :, ::4, ::4, ::4]\n"
        "np.testing.assert_allclose(logits, steps['every_fourth_logit'], atol=1e-4)\n"
        "assert json.loads(files['contract.json'])['before']\n"
        "assert not {'seg', 'monai'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_onnx_and_its_contract_are_enough_to_predict_as_the_run(
    whole: tuple[Path, Any], predictor: Predictor, phantom_root: Path, tmp_path: Path
) -> None:
    outputs, result = whole
    place = tmp_path / "exported"
    command = [sys.executable, "-m", "seg.export", f"run={result.run_id[:8]}", f"output={place}"]
    done = subprocess.run([*command, f"paths.outputs={outputs}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    contract = json.loads((place / "contract.json").read_text())
    assert len(contract["check"]["scans"]) == 3  # the example and two of the run's own
    assert contract["input"]["shape"] == ["batch", 1, *predictor.package.plan.patch]
    assert "phantom_0" not in json.dumps(contract)
    program = (ROOT / "docs" / "export.md").read_text().split("```python\n")[1].split("```")[0]
    program += "assert not {'torch', 'seg', 'monai'} & {*sys.modules}\n"
    program += f"np.save({str(tmp_path / 'prepared.npy')!r}, prepared)\n"
    scans = [place / "example.nii.gz", *sorted((phantom_root / "imagesTr").glob("*.nii.gz"))[:2]]
    for scan in scans:
        arguments = [str(place), str(scan), str(tmp_path / "mask.nii.gz")]
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        mask, wanted = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), predictor(scan).mask
        assert np.any(wanted)
        assert np.mean(mask != wanted) < 1e-4
        if scan == scans[0]:
            assert np.array_equal(wanted, np.asarray(nib.load(place / "example_mask.nii.gz").dataobj))
            steps = np.load(place / "example_steps.npz")
            np.testing.assert_allclose(np.load(tmp_path / "prepared.npy"), steps["prepared"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dims", "block"), sorted({*MIXED, *(("unet", 3, block) for block in BLOCKS)}))
def test_every_network_can_be_exported(predictor: Predictor, tmp_path: Path, model: str, dims: int, block: str) -> None:
    """In 3-D those that know deep supervision are trained with it, in 2-D without."""
    supervision = {"deep_supervision": dims == 3} if "deep_supervision" in load("model", model) else {}
    torch.manual_seed(0)
    network: Network = small_network(model, dims, in_channels=1, out_channels=3, **supervision)
    if block != "none":
        network = insert_attention(network, *attention_block(block))
    plan = replace(predictor.package.plan, patch=tuple(smallest(network)))
    small = replace(predictor, network=network.eval(), package=replace(predictor.package, plan=plan))
    found = export(small, tmp_path / "out", "onnx")
    assert found["logit_difference"] <= 1e-3 * found["largest_logit"]
    answer = opened(tmp_path / "out" / "network.onnx")
    windows = torch.randn(5, 1, *plan.patch)
    with torch.no_grad():
        torch.testing.assert_close(answer(windows), network(windows), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_refused(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg.deploy.export.opened", lambda path: lambda windows: 1.1 * opened(path)(windows))
    with pytest.raises(DataError, match="does not answer as the network itself"):
        export(predictor, tmp_path / "out", "pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_file_that_sometimes_answers_with_no_number_is_refused(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(path: Path) -> Any:
        answer = opened(path)
        return lambda windows: answer(windows) * (torch.nan if len(windows) == 3 else 1)

    monkeypatch.setattr("seg.deploy.export.opened", sometimes)
    with pytest.raises(DataError, match="a logit differs by up to nan"):
        export(predictor, tmp_path / "out", "pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("regions", "log"), [(None, "log(p), p"), (((1, 2), (2,)), "log(p / (1 - p)), p")])
def test_logits_over_shifts_are_those_of_a_mean_probability(predictor: Predictor, regions: Any, log: str) -> None:
    settings = predictor.package.settings
    shifted = settings | {"inference": settings["inference"] | {"shifts": True}}
    package = replace(predictor.package, settings=shifted, regions=regions)
    assert f"From here on the logits are {log}" in " ".join(instructions(package, "onnx")["after"])
    assert "log(p" not in " ".join(instructions(predictor.package, "onnx")["after"])


class Wayward(torch.nn.Module):
    """Looks at its values to decide what to do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 3, 1, 1, 1) if x.sum() > 0 else -x.repeat(1, 3, 1, 1, 1)


def test_a_network_that_cannot_be_exported_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    network = Network(Wayward(), (), in_channels=1, dims=3, multiple=predictor.network.multiple)
    with pytest.raises(ConfigError, match=r"This network cannot be exported as pt2: .*a package instead"):
        export(replace(predictor, network=network), tmp_path / "out", "pt2")
    assert [*tmp_path.iterdir()] == []


def test_what_is_missing_or_in_the_way_is_said(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="format is tflite; it must be one of onnx, pt2"):
        export(predictor, tmp_path / "out", "tflite")
    with pytest.raises(DataError, match="exists already"):
        export(predictor, tmp_path, "pt2")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs .*onnxruntime.*: pip install 'seg\[onnx\]'"):
        export(predictor, tmp_path / "out", "onnx")
