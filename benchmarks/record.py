"""The record on Hippocampus from scratch: runs experiments/record.yaml, then says whether it holds.

``make record ARGS="data.root=…"``; what was stopped continues with the same command. ``python -m benchmarks.record
judge=scores.csv`` judges the scores of such a study alone. Beside its networks, each of which is judged by itself, are
those of an arm's three seeds together: the class that most of their masks give a voxel, the lowest where all differ.
(``seg.predict`` of several runs averages their probabilities instead.)
"""

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.nnunet import scores as score_masks
from seg.data import nifti
from seg.data.cases import CaseSet, hippocampus
from seg.data.volumes import read_header, read_label
from seg.metrics import read_scores
from seg.records.folder import by_id
from seg.study.analysis import Analysis, analyse
from seg.study.anchors import with_anchors

ANCHOR = Path("experiments/anchors/hippocampus.csv")
TOOL = "nnU-Net"
STUDY = Path("experiments/record.yaml")
AIMS = {"steps_3000": 0.003, "steps_800": 0.005}  # non-inferiority margin of each arm, in Dice
FAVOURS = (
    "What favours whom: the recipe was chosen on 160 of these cases (benchmarks/RESULTS.md); nnU-Net's checkpoint was "
    "chosen on the fold that is scored, and most patients' other side was among its training cases."
)


def lacking(scores: pd.DataFrame) -> list[str]:
    """The trainings of the record whose scores are not there."""
    study = yaml.safe_load(STUDY.read_text("utf-8"))
    wanted = set(product(study["arms"], study["seeds"], range(study["folds"])))
    there = {(arm, int(seed), int(fold)) for arm, seed, fold in scores[["arm", "seed", "fold"]].to_numpy()}
    return [f"{arm}, seed {seed}, fold {fold}" for arm, seed, fold in sorted(wanted - there)]


def judged(scores: pd.DataFrame, aims: dict[str, float]) -> tuple[list[str], bool]:
    """What the arms reach beside the tool, a line an arm and class, and whether each is as good as its aim says.

    An arm holds if the lower end of the 90 % interval of its paired difference, over patients and seeds, lies above
    minus its aim: non-inferior by a one-sided test at 5 %.
    """
    arms = list(aims)
    lines, holds = [], True
    for classes in (None, *([name] for name in sorted(scores["class"].unique()))):
        one = analyse(scores, baseline=arms[0], arms=arms, metrics=["dice"], classes=classes)
        beside = with_anchors(one, scores, {TOOL: ANCHOR.read_text("utf-8")}, arms=arms).anchors[TOOL]
        for row in beside.comparisons.itertuples():
            lines.append(_line(row, beside, classes[0] if classes else "mean"))
            if classes is None:
                reached = float(row.tost_low) > -aims[str(row.arm)]
                lines.append(f"  {'holds' if reached else 'does NOT hold'}: no more than {aims[str(row.arm)]} below")
                holds &= reached
    return lines, holds


def _line(row: Any, beside: Analysis, of: str) -> str:
    means = beside.arms[beside.arms["metric"] == "dice"].set_index("arm")["mean"]
    interval = f"95 % {row.ci_low:+.4f} to {row.ci_high:+.4f}, 90 % {row.tost_low:+.4f} to {row.tost_high:+.4f}"
    return f"{row.arm}, {of}: Dice {means[row.arm]:.4f}, {row.difference:+.4f} beside {TOOL} ({interval})"


def voted(scores: pd.DataFrame, cases: CaseSet, outputs: Path, arm: str, tolerance_mm: float) -> pd.DataFrame:
    """Scores of the masks on which most of an arm's networks agree; each case by those that had not seen it."""
    folders, rows = by_id(outputs), scores[scores["arm"] == arm].drop_duplicates(["case", "run_id"])
    with tempfile.TemporaryDirectory() as place:
        for case, own in rows.groupby("case")["run_id"]:
            paths = [folders[run_id].predictions / f"{case}.nii.gz" for run_id in own]
            masks = np.stack([read_label(path) for path in paths])
            counts = [(masks == value).sum(0) for value in range(len(cases.names))]
            most = np.argmax(counts, 0).astype(np.uint8)
            nifti.write_volume(Path(place, f"{case}.nii.gz"), most, read_header(paths[0]).affine)
        found = score_masks(cases, rows["case"].unique(), Path(place), tolerance_mm)
    patients = dict(scores[["case", "patient"]].to_numpy())
    return found.assign(arm=f"{arm}, three votes", seed=0, fold=0, patient=found["case"].map(patients))


def together(scores: pd.DataFrame, root: str, outputs: Path) -> list[str]:
    """What three networks of an arm reach together beside the tool: finished tools, both."""
    lines, cases = [], hippocampus(root)
    for arm in AIMS:
        votes = voted(scores, cases, outputs, arm, float(scores["nsd_tolerance_mm"].iloc[0]))
        name = str(votes["arm"].iloc[0])
        one = analyse(votes, baseline=name, metrics=["dice"], fixed=True)
        beside = with_anchors(one, votes, {TOOL: ANCHOR.read_text("utf-8")}, arms=[name]).anchors[TOOL]
        lines += [_line(row, beside, "mean") for row in beside.comparisons.itertuples()]
    return lines


def main() -> int:
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    outputs = Path(given.get("paths.outputs", "outputs"))
    if "judge" in given:
        path = Path(given["judge"])
    else:
        command = [sys.executable, "-m", "seg.train", "-m", "experiments=record", *sys.argv[1:]]
        if done := subprocess.run(command, check=False).returncode:
            return done
        path = max(outputs.glob("sweeps/record-*/scores.csv"), key=lambda path: path.stat().st_mtime)
    scores = read_scores(path)
    lines, holds = judged(scores, AIMS)
    if "data.root" in given:  # and the masks are in ``outputs``
        lines += together(scores, given["data.root"], outputs)
    missing = lacking(scores)
    end = f"No record: {len(missing)} trainings are missing, such as {missing[0]}." if missing else ""
    end = end or f"The record {'holds' if holds else 'does NOT hold'}."
    print("\n".join([f"\n{path}", *lines, FAVOURS, end]))
    return int(bool(missing) or not holds)


if __name__ == "__main__":
    sys.exit(main())
