"""The record on Hippocampus from scratch: runs experiments/record.yaml, then says whether it holds.

``make record ARGS="data.root=…"``; what was stopped continues with the same command. ``python -m benchmarks.record
judge=scores.csv`` judges the scores of such a study alone.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from seg.study.analysis import Analysis, analyse
from seg.study.anchors import with_anchors

ANCHOR = Path("experiments/anchors/hippocampus.csv")
TOOL = "nnU-Net"
AIMS = {"steps_3000": 0.003, "steps_800": 0.005}  # by arm: within so much Dice of nnU-Net, which two tests at 5 % show


def judged(scores: pd.DataFrame, aims: dict[str, float]) -> tuple[list[str], bool]:
    """What the arms reach beside the tool, a line an arm and class, and whether each is as good as its aim says.

    An arm is when the 90 % interval of its paired difference, over patients and seeds, ends above minus its aim
    (non-inferior); better when it ends above plus 0.003.
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


def main() -> int:
    if (first := sys.argv[1] if len(sys.argv) > 1 else "").startswith("judge="):
        path = Path(first.removeprefix("judge="))
    else:
        outputs = Path(next((a.partition("=")[2] for a in sys.argv if a.startswith("paths.outputs=")), "outputs"))
        command = [sys.executable, "-m", "seg.train", "-m", "experiments=record", *sys.argv[1:]]
        if done := subprocess.run(command, check=False).returncode:
            return done
        path = max(outputs.glob("sweeps/record-*/scores.csv"), key=lambda path: path.stat().st_mtime)
    lines, holds = judged(pd.read_csv(path), AIMS)
    print(f"\n{path}\n" + "\n".join(lines) + f"\nThe record {'holds' if holds else 'does NOT hold'}.")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
