"""A run on structures that overlap: its masks and scores, and all that is done with its network afterwards."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from training import TINY, arguments, composed

from seg.data.cases import folder
from seg.deploy import Predictor
from seg.deploy.export import export
from seg.deploy.maps import Maps
from seg.deploy.predictor import predict_together
from seg.deploy.scoring import scored, suits
from seg.engine.build import build_run
from seg.engine.cases import read_material
from seg.engine.device import choose_device, choose_precision
from seg.engine.distributed import World
from seg.errors import ConfigError, DataError
from seg.metrics import dice
from seg.pages.compare import compare
from seg.records.folder import RunFolder
from seg.train import train

REGIONS = {"organ": (1, 2), "tail": (2,)}
IGNORED = 3


@pytest.fixture
def root(phantom_root: Path, tmp_path: Path) -> Path:
    """Half of the phantom, whose tail is a part of its organ; a few slices are annotated by nobody."""
    about = json.loads((phantom_root / "dataset.json").read_text())
    about["labels"] = {"background": 0, "organ": [1, 2], "tail": 2, "ignore": IGNORED}
    about |= {"regions_class_order": [1, 2], "training": about["training"][:6], "numTraining": 6}
    place = tmp_path / "organs"
    for file in ("imagesTr", "labelsTr"):
        (place / file).mkdir(parents=True)
    (place / "dataset.json").write_text(json.dumps(about))
    for entry in about["training"]:
        shutil.copy(phantom_root / entry["image"], place / entry["image"])
        label = nib.load(phantom_root / entry["label"])
        voxels = np.asarray(label.dataobj).copy()
        voxels[..., -6:] = IGNORED
        nib.save(nib.Nifti1Image(voxels, label.affine, label.header), place / entry["label"])
    return place


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.slow
def test_a_run_is_scored_on_unions_of_labels_and_its_network_answers_as_it_did(
    tiny: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    result = tiny(f"data.root={root}")
    run = RunFolder.at(tmp_path / "runs" / result.predictions.name)
    table = pd.read_csv(run.cases).set_index(["case", "class"])
    packed = Predictor.load(run.run).store(tmp_path / "organs.zip")
    assert (packed.regions, packed.outputs) == (tuple(REGIONS.values()), 2)
    predictor, cases, filled = Predictor.load(tmp_path / "organs.zip"), folder(root), 0
    suits(cases, predictor)
    for case in [case for case in cases.cases if case.id in table.index]:
        mask, label = (read(place / f"{case.id}.nii.gz") for place in (result.predictions, root / "labelsTr"))
        found = predictor(*case.images)
        assert np.array_equal(found.mask, mask)
        assert found.volumes_ml["organ"] >= found.volumes_ml["tail"] >= 0
        rows = {row["class"]: row for row in scored(case, cases, predictor, run, None)}
        for name, labels in REGIONS.items():
            mine, theirs = np.isin(mask, labels) & (label != IGNORED), np.isin(label, labels)
            filled += int(mine.any())
            own = table.loc[(case.id, name)]
            assert own["dice"] == rows[name]["dice"] == pytest.approx(dice(mine, theirs, (1, 1, 1)))
        assert found.observed.confidence.get("tail", 1) > 0.5
    assert filled
    with pytest.raises(DataError, match="regions_class_order"):
        suits(replace(cases, regions=None), predictor)


def test_a_loss_that_knows_classes_alone_is_refused_before_any_volume_is_prepared(root: Path, tmp_path: Path) -> None:
    cfg = composed(*TINY, *arguments(root, tmp_path, tmp_path / "cache"))
    cfg.loss = OmegaConf.create({"_target_": "torch.nn.CrossEntropyLoss"})
    with pytest.raises(ConfigError, match=r"regions, whose logits and target are \(B, R"):
        build_run(cfg, read_material(cfg), World(), choose_precision("fp32", choose_device("cpu")))


@pytest.mark.slow
def test_slices_deep_supervision_shifts_ensembles_maps_export_and_pages(root: Path, tmp_path: Path) -> None:
    plain = [one for one in TINY if not one.startswith("model.")]
    settings = ["model=dynunet", "model.width=8", "model.strides=[1,2,2]", "dims=2", "inference.shifts=true"]
    given = [*plain, *arguments(root, tmp_path, tmp_path / "cache"), *settings]
    results = [train(composed(*given, f"seed={seed}"), f"regions {seed}") for seed in range(2)]
    runs = [tmp_path / "runs" / result.predictions.name for result in results if result]
    predictors = [Predictor.load(run) for run in runs]
    case = folder(root).cases[0]
    maps = Maps(tmp_path / "probabilities.nii.gz", tmp_path / "disagreement.nii.gz")
    mask = predict_together(predictors, *case.images, maps=maps).mask
    certain = read(tmp_path / "probabilities.nii.gz")
    assert certain.shape == (*mask.shape, 2)
    sure = np.abs(certain - 0.5).min(-1) > 1 / 255  # the map is in steps
    painted = np.where(certain[..., 1] > 0.5, 2, certain[..., 0] > 0.5)
    assert np.array_equal(painted[sure], mask[sure])
    assert 0 <= read(tmp_path / "disagreement.nii.gz").max() <= 2 * np.log(2)
    found = export(predictors[0], tmp_path / "exported", "pt2", [case])
    assert [part["differing"] for part in found["scans"]] == [0, 0]
    contract = json.loads((tmp_path / "exported/contract.json").read_text())
    assert contract["output"]["shape"][1] == 2
    assert "above 0" in " ".join(contract["after"])
    page = compare([RunFolder.at(run) for run in runs], tmp_path)  # which holds each mask against its Dice
    assert page.how
