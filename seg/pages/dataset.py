"""``python -m seg.report data=hippocampus``: the results on a data set over time, and the best so far."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg.config.options import OPTIONS
from seg.errors import ConfigError, nearest
from seg.files import atomic_write
from seg.records.scored import choices

if TYPE_CHECKING:
    import pandas as pd

    from seg.study.progress import Line, Result

WITHIN_NAMES = r"[^\w.-]+"  # what no name of a file may hold
# Parameters that cannot change a score, or that the page tells by themselves.
_NO_SETTINGS = ("data.root", "data.fold", "trainer.workers", "check", "resume", "study", "arm", "seed", "parameters")
_NO_SECTIONS = ("paths.", "tracking.", "predictions.", "resolved.")


def main(cfg: DictConfig) -> None:
    """Writes the page and the picture of a data set, and prints the records.

    Raises:
        ConfigError: no run is of that data set, or MLflow does not answer.
        DataError: scores that are doubled or no numbers.
    """
    from seg.pages.progress import png, progress_page
    from seg.records.table import runs, scores_of
    from seg.study.progress import lines, sentence

    outputs, uri, name = Path(cfg.paths.outputs), cfg.tracking.uri, str(cfg.dataset)
    table, left_out = scored_runs(of_data_set(runs(outputs, uri), name, outputs))
    drawn = lines(results(table, scores_of(table, outputs, uri), left_out)) if len(table) else []
    told = [f"Left out: {', '.join(f'{which} {count}' for which, count in left_out.items())}."] * bool(left_out)
    if not drawn:
        print("\n".join([f"No result on {name} so far.", *told]))
        return
    path = outputs / "progress" / f"{re.sub(WITHIN_NAMES, '_', name).lstrip('.') or 'data'}.html"
    atomic_write(path, progress_page(name, drawn, told))
    atomic_write(path.with_suffix(".png"), png(drawn))
    for line in drawn:
        print(f"{sentence(line)}\n")
        _show(line)
        print()
    print("\n".join([*told, f"{path.absolute()}: open it in a browser. Its picture: {path.with_suffix('.png').name}."]))


def of_data_set(table: "pd.DataFrame", name: str, outputs: Path) -> "pd.DataFrame":
    """The runs of one data set.

    Raises:
        ConfigError: there are none.
    """
    there = sorted(set(table["dataset"].dropna()))
    if name not in there:
        known = f" There are: {', '.join(there)}." if there else f" There is no run in {outputs} at all."
        raise ConfigError(f"No run is of a data set {name}.{nearest(name, there)}{known}")
    return table[table["dataset"] == name]


def scored_runs(table: "pd.DataFrame") -> tuple["pd.DataFrame", Counter[str]]:
    """The finished runs that have a mean Dice of their part, as column ``part``; of the others how many and why."""
    import pandas as pd

    nothing = pd.Series(index=table.index, dtype=object)
    left_out: Counter[str] = Counter()
    parent = (table.get("experiment_type", nothing) == "sweep") | table["run_id"].isin(set(table["parent"].dropna()))
    table = _without(table, parent, "records of whole sweeps", left_out)
    for state, count in table["status"].value_counts().items():
        if state != "FINISHED":
            left_out[str(state).lower()] += int(count)
    table = table[table["status"] == "FINISHED"]
    part = pd.Series(index=table.index, dtype=object)
    for name in ("oof", "test"):
        part[table.get(f"{name}_dice", nothing).reindex(table.index).notna()] = name
    table = _without(table.assign(part=part), part.isna(), "validated only", left_out)
    return _without(table, table["started"].isna(), "time not known", left_out), left_out


def _without(table: "pd.DataFrame", rows: "pd.Series[bool]", reason: str, left_out: Counter[str]) -> "pd.DataFrame":
    if rows.any():
        left_out[reason] += int(rows.sum())
    return table[~rows]


def results(table: "pd.DataFrame", scores: "pd.DataFrame", left_out: Counter[str]) -> "list[Result]":
    """One result a tested run, and one for the runs out of fold that differ in nothing but their fold."""
    by_run = {str(run_id): part for run_id, part in scores.groupby("run_id")}
    known = table["run_id"].isin(set(by_run))
    table = _without(table, ~known, "table of cases not found", left_out)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        together = row["run_id"] if row["part"] == "test" else _but_for_the_fold(row)
        groups.setdefault(together, []).append(row)
    found = []
    for group in groups.values():
        tests = Counter(case for row in group for case in set(by_run[row["run_id"]]["case"]))
        for rows in [group] if max(tests.values()) == 1 else [[row] for row in group]:
            found.append(_result(rows, by_run))
    return found


def _result(rows: list[dict[str, Any]], by_run: "dict[str, pd.DataFrame]") -> "Result":
    import pandas as pd

    from seg.study.progress import Result

    rows = sorted(rows, key=lambda row: (_text(row.get("fold")), row["run_id"]))
    first = rows[0]
    arm = _text(first.get("arm"))
    scores = pd.concat([by_run[row["run_id"]] for row in rows], ignore_index=True)
    if "patient" not in scores:
        scores["patient"] = float("nan")
    ends = [row["started"] + pd.Timedelta(seconds=row["seconds"] if row["seconds"] > 0 else 0) for row in rows]
    return Result(
        runs=tuple(str(row["run_id_short"]) for row in rows),
        finished=max(ends).to_pydatetime(warn=False),
        name=choices(str(first["name"])),
        study=_text(first.get("study")),
        arm="" if arm == first["name"] else arm,
        seed=_text(first.get("seed")),
        folds=tuple(_text(row.get("fold")) for row in rows),
        part=first["part"],
        data=_text(first.get("dataset_version")),
        settings=_settings(first),
        scores=scores.assign(patient=scores["patient"].fillna(scores["case"])),
    )


def _but_for_the_fold(row: dict[str, Any]) -> str:
    """The same for the runs of all folds of one arm and seed."""
    return json.dumps([_text(row.get(key)) for key in ("sweep", "study", "params.arm", "seed")] + [_settings(row)])


def _settings(row: dict[str, Any]) -> dict[str, str]:
    """The parameters that can change a score, as text; what is not set is left out."""
    named = {key.removeprefix("params."): _text(value) for key, value in row.items() if key.startswith("params.")}
    return {
        key: text.rpartition(".")[2] if key.endswith("_target_") else text
        for key, text in sorted(named.items())
        if key not in (*_NO_SETTINGS, *OPTIONS) and not key.startswith(_NO_SECTIONS) and not key.endswith("_partial_")
        if text not in ("", "{}")
    }


def _text(value: Any) -> str:
    """A cell as text; a whole number without its point, and nothing for what is missing."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _show(line: "Line") -> None:
    """Prints the records of a line."""
    import pandas as pd

    from seg.records.table import show
    from seg.study.progress import gained, moment, with_interval

    rows = []
    for record in line.records:
        result = line.results[record.place]
        dice = with_interval(result.dice, record.low, record.high)
        rows.append(
            {"run_id_short": result.run, "finished (UTC)": moment(result.finished), "what": result.what}
            | {"Dice": dice, "gain": gained(record)}
        )
    table = pd.DataFrame(rows)
    show(table, [name for name in table if name != "run_id_short"])
