"""A study with anchors: what they lack is refused before the first run; what they were is kept with the question."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_design import FILE, run
from test_sweeper import Sweeps, sweeps

from seg.study.question import Asked

__all__ = ["sweeps"]  # a fixture
FOLDS = "folds: 2\nbase: {data.test_fraction: 0}\n"


def anchor(root: Path, *left_out: str) -> str:
    """Dice of each structure of the data set, but for some cases."""
    labels = json.loads((root / "dataset.json").read_text())["labels"]
    lines = ["# Made up.", "case,class,dice"]
    for path in sorted((root / "labelsTr").glob("*.nii.gz")):
        case, there = path.name.removesuffix(".nii.gz"), np.unique(nib.load(path).dataobj)
        lines += [
            f"{case},{name},0.9"
            for value, name in labels.items()
            if int(value) and int(value) in there and case not in left_out
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_an_anchor_that_lacks_a_case_is_refused_before_the_first_run(sweeps: Sweeps, phantom_root: Path) -> None:
    file = sweeps.outputs.parent / "anchor.csv"
    study = f"{FILE}{FOLDS}anchors: {{nnU-Net: {file}}}\n"
    file.write_text(anchor(phantom_root, "phantom_003", "phantom_007"))
    structures = anchor(phantom_root).count("0.9")
    for arguments in ((), ("check=true",)):
        said = run(sweeps, *arguments, file=study, code=2)
        assert f"of the {structures} structures that are scored: phantom_003 " in said
        assert said.count("The anchor nnU-Net") == 1
    assert not sweeps.acts
    file.write_text(text := anchor(phantom_root))
    run(sweeps, file=study)
    file.unlink()
    assert Asked.read(sweeps.folder).anchors == {"nnU-Net": text}
    assert len(sweeps.acts) == 4


@pytest.mark.slow
def test_only_what_is_scored_must_be_there(sweeps: Sweeps, phantom_root: Path) -> None:
    file = sweeps.outputs.parent / "anchor.csv"
    file.write_text("case,class,dice\nother,body,0.9\n")
    said = run(sweeps, "check=true", file=f"{FILE}anchors: {{x: {file}}}\n", code=2)
    found = {part.split()[0] for part in said.partition("are scored: ")[2].partition(". Add")[0].split(", ")}
    assert 0 < len(found) < 6, "the test part"
    rest = {path.name.removesuffix(".nii.gz") for path in (phantom_root / "labelsTr").iterdir()} - found
    file.write_text(anchor(phantom_root, *rest))
    run(sweeps, "check=true", file=f"{FILE}anchors: {{x: {file}}}\n")
