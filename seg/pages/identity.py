"""What a study's page tells of its runs: data, split, settings, budget, code, dates, machine, how to repeat it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seg.data.splits import Split
from seg.errors import DataError, few
from seg.records.folder import RunFolder, by_id
from seg.records.provenance import short
from seg.records.scored import ScoredRun
from seg.study.anchors import provenance
from seg.study.methods import Facts
from seg.study.question import Asked, changes
from seg.study.typeset import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = {
    "Network": {"model._target_": "", "attention._target_": "attention", "parameters": "parameters"},
    "Preprocessing": {"resolved.spacing_mm": "spacing (mm)", "resolved.patch": "patch", "dims": "dimensions"},
    "Training": {
        "loss._target_": "loss",
        "optimizer._target_": "optimizer",
        "optimizer.lr": "learning rate",
        "scheduler._target_": "schedule",
        "resolved.batch_size": "batch",
        "resolved.precision": "precision",
    },
}
UNKNOWN = "its file does not say where it is from"
_EARLY = ("trainer.early_stopping", "trainer.stop")  # what may end a run before its budget
_BUDGET = {"max_epochs": "epoch", "max_steps": "step", "max_minutes": "minute"}


def facts(asked: Asked, table: "pd.DataFrame", parents: "pd.DataFrame", outputs: Path) -> Facts:
    """What the record holds of the runs in ``table``, and of the sweep itself in ``parents``."""
    here = by_id(outputs)
    commits = _values(table, "git_commit")
    dirty = " (with uncommitted changes)" if "true" in _values(table, "git_dirty") else ""
    return Facts(
        dataset=few(_values(table, "dataset")),
        version=few(value[:8] for value in _values(table, "dataset_version")),
        split=_split(table, here),
        base=asked.base,
        settings={"Network": str(asked.base.get("model", ""))}
        | {name: told for name, keys in _SETTINGS.items() if (told := "; ".join(_settings(table, keys)))},
        budget=_budget(table),
        code=f"commit {few(short(commit, 10) for commit in commits)}{dirty}" if commits and commits != ["none"] else "",
        dates=_dates(table),
        machine="; ".join(_values(table, "environment")),
        command=next(iter(_values(parents, "params.command")), ""),
        lock=next(iter(_values(parents, "params.lock")), ""),
        runs=[(row["run_id_short"], row["name"], _address(here.get(row["run_id"]))) for _, row in table.iterrows()],
    )


def identity_table(asked: Asked, known: Facts) -> Table:
    """The facts as a table; what the record does not hold is left out."""
    rows: dict[str, str] = {
        "Question": asked.question,
        "Data set": known.dataset,
        "Version of the data": known.version,
        "Split": known.split,
        "The same for all arms": "\n".join(f"{key}: {value}" for key, value in known.base.items()),
        **known.settings,
        "Budget of a run": known.budget,
        "Code": known.code,
        "Locked before the first run": known.lock,
        "Run": known.dates,
        "Machine": known.machine,
        "To repeat it": known.command,
    }
    cells = [[Cell(name), Cell(text)] for name, text in rows.items() if text]
    names = "\n".join(f"{short}  {name}" for short, name, _ in known.runs)
    cells.append([Cell("Runs"), Cell(names, links=[address for *_, address in known.runs])])
    cells += [[Cell(f"Arm {arm}"), Cell("\n".join(changes(asked.different.get(arm, {}))))] for arm in asked.arms]
    cells += [[Cell(f"Anchor {name}"), Cell(provenance(text) or UNKNOWN)] for name, text in asked.anchors.items()]
    return Table("This study", ["", ""], {"": cells}, "")


def _values(table: "pd.DataFrame", column: str) -> list[str]:
    return sorted(set(table[column].dropna().astype(str))) if column in table else []


def _settings(table: "pd.DataFrame", keys: Mapping[str, str]) -> Iterator[str]:
    """Each setting that all runs share, in a few words; of those that differ between arms nothing."""
    for key, name in keys.items():
        values = _values(table, f"params.{key}")
        if len(values) == 1 and table[f"params.{key}"].notna().all():
            text = values[0].rpartition(".")[2] if key.endswith("_target_") else values[0].removesuffix(".0")
            yield f"{name} {text}".strip()


def _budget(table: "pd.DataFrame") -> str:
    """What ends a run, whichever comes first, as it was set or else came out; nothing where that differs."""
    told = _limits(table, "trainer") or _limits(table, "resolved")
    early = {value for key in _EARLY for value in _values(table, f"params.{key}")} - {"None"}
    most = "at most " if early and told else ""
    return most + " or ".join(f"{number} {unit}{'' if number == '1' else 's'}" for number, unit in told)


def _limits(table: "pd.DataFrame", section: str) -> list[tuple[str, str]]:
    """The numbers and units of the budget in this section of the parameters, where all runs have the same."""
    found = ((_values(table, f"params.{section}.{key}"), unit) for key, unit in _BUDGET.items())
    return [(values[0].removesuffix(".0"), unit) for values, unit in found if len(values) == 1 and values[0] != "auto"]


def _dates(table: "pd.DataFrame") -> str:
    """When the first and the last run began."""
    started = table["started"].dropna()
    return " to ".join(
        dict.fromkeys(f"{day:%d %B %Y}".lstrip("0") for day in (started.min(), started.max()) if len(started))
    )


def _split(table: "pd.DataFrame", here: Mapping[str, RunFolder]) -> str:
    """How many cases are in which part, by the first run that has its split here, and the split's hash."""
    hashes = few(value[:8] for value in _values(table, "split_hash"))
    for run_id in table["run_id"]:
        if run_id in here:
            try:
                split = here[run_id].read(here[run_id].split, Split.from_json)
            except DataError:
                continue
            named = {"training": split.train, "validation": split.val, "test": split.test}
            parts = ", ".join(f"{len(ids)} {name}" for name, ids in named.items() if ids)
            return f"{parts} cases{f' in fold {split.fold} of {split.folds}' if split.fold != 'all' else ''}; {hashes}"
    return hashes


def _address(folder: RunFolder | None) -> str:
    return (ScoredRun(folder).address or "") if folder else ""
