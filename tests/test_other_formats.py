"""A training on DICOM series with labels in MetaImage: from the folder to the compare page and the scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scans import save, series

from seg import compare, score
from seg.data.cases import folder
from seg.data.grids import same_grid
from seg.data.nifti import to_ras
from seg.data.volumes import read_header, read_image, read_label

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom in other formats."""
    root, training = tmp_path_factory.mktemp("formats"), []
    for case in folder(phantom_root).cases:
        image, affine = read_image(case.images)
        assert case.label is not None
        (voxels, place), (label, _) = to_ras(np.rint(image[0]), affine), to_ras(read_label(case.label), affine)
        series(root / "imagesTr" / case.id, voxels.astype(np.int16), place)
        save(root / "labelsTr" / f"{case.id}.mha", label.astype(np.uint8), place)
        training.append({"image": f"imagesTr/{case.id}", "label": f"labelsTr/{case.id}.mha"})
    content = json.loads((phantom_root / "dataset.json").read_text("utf-8")) | {"training": training}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_run_on_other_formats(tiny: Callable[..., Any], root: Path, tmp_path: Path) -> None:
    result = tiny(f"data.root={root}")
    own = pd.read_csv(tmp_path / "runs" / result.predictions.name / "data/cases.csv")
    masks = sorted(result.predictions.glob("*.nii.gz"))
    assert {path.name.split(".")[0] for path in masks} == {*own["case"]}
    assert all(same_grid(read_header(mask), read_header(root / "imagesTr" / mask.name.split(".")[0])) for mask in masks)
    paths = {"outputs": str(tmp_path), "cache": str(tmp_path / "cache")}
    data = {"root": str(root), "name": "phantom", "patient": None}
    given = {"run": result.run_id[:8], "data": data, "pred": None, "ref": None, "device": "auto", "masks": True}
    score.main(OmegaConf.create(given | {"paths": paths}))
    table = pd.read_csv(tmp_path / "scores" / result.predictions.name / "phantom/cases.csv")
    same = table[table["case"].isin(own["case"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same[list(own)], own)
    page = {
        "runs": result.run_id[:8],
        "study": None,
        "sweep": None,
        "folds": "auto",
        "file": str(tmp_path / "page.html"),
    }
    page |= {"channel": 0, "window": "auto", "max_mb": 30, "data": {"root": None}, "tracking": {"uri": None}}
    compare.main(OmegaConf.create(page | {"paths": paths}))
    text = (tmp_path / "page.html").read_text("utf-8")
    assert own["case"][0] in text
    assert not [word for word in ("Doe^Jane", "PID-4711", "1.2.826.0.1.77") if word in text]
    record = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.suffix != ".png"]
    assert not [path for path in record if b"Doe^Jane" in path.read_bytes()]
