"""The page of some runs: the same case and slice of each beside the reference."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg.config.options import build
from seg.errors import DataError, few, together
from seg.records.folder import RunFolders, claimed
from seg.records.scored import ScoredRun, differences, facts_of, grouped, labels, ui_commands

if TYPE_CHECKING:
    from seg.data.cases import CaseSet
    from seg.pages.compare import Column, Measure, Page


def compare(
    folders: Sequence[RunFolders],
    outputs: Path,
    *,
    name: str = "",
    pooled: bool = False,
    root: str | None = None,
    channel: int = 0,
    window: tuple[float, float] | None = None,
    max_mb: float = 30,
) -> "Page":
    """The page of these runs; ``atomic_write(path, page.text)`` writes it.

    Args:
        folders: of the runs, in the order of the page.
        outputs: where they lie.
        name: begins the title; "": how many runs there are.
        pooled: runs that differ in nothing but their fold, and share no test case, in one column.
        root: of the data set; None: where the runs found it.
        channel: of the image.
        window: image values shown black and white at first; None: of each case its own.
        max_mb: of the page.

    Raises:
        ConfigError: the page cannot be made so.
        DataError: something of the runs is missing or was changed, or they are of different data sets.
    """
    from seg.pages.compare import View, compare_page

    runs = [ScoredRun(one) for one in folders]
    together(DataError, [run.fault for run in runs if run.fault])
    together(DataError, differences(runs))
    cases = case_set(runs, root)
    groups = grouped(runs) if pooled else [[run] for run in runs]
    view = View(
        axis=slice_axis(runs[0]),
        channel=channel,
        window=window,
        max_bytes=int(max_mb * 1e6),
        commands=ui_commands(runs, outputs),
        made=time.strftime("%Y-%m-%d %H:%M"),
    )
    name = name or (counted(len(runs), "run") if len(runs) > 1 else runs[0].name)
    return compare_page(f"{name} on {cases.name}", cases, columns(groups), measures(runs), view)


def here(run_ids: Sequence[str], outputs: Path) -> tuple[list[RunFolders], list[str]]:
    """The folders of the runs that have one in ``outputs``, in their order, and the ids of the others."""
    known = {folders.run_id: folders for folders in claimed(outputs)}
    return [known[run_id] for run_id in run_ids if run_id in known], [id_ for id_ in run_ids if id_ not in known]


def case_set(runs: Sequence[ScoredRun], root: str | None) -> "CaseSet":
    """The data set of the runs, from where it lies now; patients as the runs noted them.

    Raises:
        DataError: it is not there.
    """
    roots = list(dict.fromkeys(str(root or run.cfg.data.root) for run in runs))
    here = [root for root in roots if Path(root).is_dir()]
    if not here:  # asked before it is built: a data set that can make itself would be made anew
        raise DataError(f"{few(roots)}: no such folder. Say where the data of the runs lie now: data.root=…")
    data = runs[0].cfg.data
    cases: CaseSet = build(data.cases, root=here[0], name=data.name, patient=None)
    patients = {row["case"]: row.get("patient") or row["case"] for run in runs for row in run.rows}
    return replace(cases, cases=tuple(replace(c, patient=patients.get(c.id, c.patient)) for c in cases.cases))


def columns(groups: Sequence[Sequence[ScoredRun]]) -> "list[Column]":
    """What the page is told of each group of runs."""
    from seg.pages.compare import Column, Record

    return [
        Column(
            label=label,
            facts=facts_of(group),
            records=[Record(run.folders.run_id, run.address) for run in group],
            preds={case: run.folders.predictions / f"{case}.nii.gz" for run in group for case in run.scores},
            scores={case: scores for run in group for case, scores in run.scores.items()},
        )
        for label, group in zip(labels(groups), groups, strict=True)
    ]


def measures(runs: Sequence[ScoredRun]) -> "list[Measure]":
    """Dice, and what else all runs have; NSD only where its tolerance is the same in all."""
    from seg.pages.compare import Measure

    numbers = [row for run in runs for by_class in run.scores.values() for row in by_class.values()]
    tolerances = {row.get("nsd_tolerance_mm") for run in runs for row in run.rows}
    known = [Measure("dice", "Dice", "", 1, 3), Measure("hd95_mm", "HD95", "mm", -1, 1)]
    if len(tolerances) == 1 and (tolerance := tolerances.pop()):
        known.insert(1, Measure("nsd", f"NSD at {float(tolerance):g} mm", "", 1, 3))
    return [measure for measure in known if measure.key == "dice" or all(measure.key in row for row in numbers)]


def slice_axis(run: ScoredRun) -> int:
    """Across which the run's own pictures cut, so that the page looks like them at first."""
    plan = run.folders.run / "data/plan.json"
    return int(json.loads(plan.read_text())["slice_axis"]) if plan.exists() else 2


def counted(count: int, word: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {word}{'' if count == 1 else 's'}"
