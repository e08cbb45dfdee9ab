"""Runs as a table, whether MLflow or their own folders hold them.

``runs(Path("outputs"), study="attention")`` gives a pandas DataFrame, one row per run.
"""

import glob
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.errors import ConfigError, nearest, without_passwords
from seg.records.folder import RunFolder, claimed
from seg.records.journal import Journal
from seg.records.live import PLAIN
from seg.records.mlflow import Mlflow
from seg.records.sink import PARENT, address_given
from seg.records.state import State, read_state

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)
_OWN = (
    *("run_id", "run_id_short", "name", "status", "started", "seconds", "experiment", "dataset"),
    *("parent", "predictions"),
)
_NUMBERED = ("seed", "fold", "trial")  # tags that count


def runs(
    outputs: Path,
    uri: str | None = None,
    *,
    run: str = "",
    study: str | None = None,
    sweep: str | None = None,
    arm: str | None = None,
    status: str | None = None,
    dataset: str | None = None,
    case: str | None = None,
) -> "pd.DataFrame":
    """The selected runs, newest first; a filter that is None selects every run.

    Args:
        outputs: holds the folders of runs; those without MLflow are read there.
        uri: of MLflow; None: ``mlflow.db`` under ``outputs``, wherever the runs there were recorded, and the address in
            MLFLOW_TRACKING_URI.
        run: beginning of the run id.
        study: the tag.
        sweep: name of a sweep, for its trials and its parent.
        arm: the tag.
        status: running, finished, pruned, failed or killed.
        dataset: name of the data set.
        case: only runs that tested this case, best first, with the columns ``case_<metric>``, means over its classes,
            and ``picture``, a path or None.

    Returns:
        One row per run: ``run_id``, ``run_id_short``, ``name``, ``status``, ``started``, ``seconds``, ``experiment``,
        ``dataset``, ``parent``, ``predictions``; then tags and last metrics by their names, and ``params.<key>``.
        A tag or metric that is named like another column is ``tags.<name>`` or ``metrics.<name>``.

    Raises:
        ConfigError: there is no folder ``outputs``, MLflow does not answer, or no run tested ``case``.
    """
    tags = {key: value for key, value in (("study", study), ("sweep", sweep), ("arm", arm)) if value is not None}
    here, stores = sources(outputs, uri)
    folders = {folders.run_id: folders for folders in here}
    records = [_local(folders, state) for folders, state in here.items() if state and state.kind != "mlflow"]
    homes: dict[str, Mlflow] = {}
    for store in stores:
        found = store.search(run, tags)
        records += [record for record in found if record["run_id"] not in homes]
        homes |= {record["run_id"]: store for record in found}
    table = _frame(records, folders)
    kept = table["run_id"].str.startswith(run)
    for column, value in {**tags, "status": status and status.upper(), "dataset": dataset}.items():
        if value is not None:
            kept &= table[column] == value if column in table else False
    table = arranged(table[kept], "started")
    return table if case is None or table.empty else _with_case(table, case, folders, homes)


def scores_of(table: "pd.DataFrame", outputs: Path, uri: str | None = None) -> "pd.DataFrame":
    """The scores of all cases of the runs in ``table``, as in their ``cases.csv``, with their full ``run_id``.

    Args:
        table: as ``runs`` gives it.
        outputs: as there.
        uri: as there.

    Returns:
        One row per run, case and class; all but the scores is text.
    """
    import pandas as pd

    from seg.metrics import read_scores

    here, stores = sources(outputs, uri)
    folders = {folders.run_id: folders for folders in here}
    homes = {
        run_id: next((store for store in stores if store.stage(run_id) == "active"), None)
        for run_id in table["run_id"]
        if run_id not in folders
    }
    parts = []
    for run_id in table["run_id"]:
        text = StringIO(_scores(run_id, folders.get(run_id), homes.get(run_id)))
        parts.append(read_scores(text).assign(run_id=run_id))
    return pd.concat(parts, ignore_index=True)


def arranged(table: "pd.DataFrame", column: str, reverse: bool = False) -> "pd.DataFrame":
    """``table`` by ``column``: best first for scores, newest for ``started``, otherwise lowest; missing values last.

    Raises:
        ConfigError: there is no such column.
    """
    from seg.metrics import METRICS

    check_columns([column], table)
    better = [name for name, metric in METRICS.items() if metric.better > 0]  # test_dice, val_dice_tail, case_nsd
    falling = column == "started" or any(re.search(f"(^|[_ ]){name}($|[_ ])", column) for name in better)
    return table.sort_values(column, ascending=falling == reverse, kind="stable", ignore_index=True)


def show(table: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Prints the short run id and ``columns``; no id and no number is ever cut, whatever the terminal's width."""
    from pandas.api.types import is_numeric_dtype
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    cells = []
    for name in dict.fromkeys(["run_id_short", *columns]):
        header = "run" if name == "run_id_short" else name
        cells.append(_texts(table[name]))
        number = is_numeric_dtype(table[name])
        width = max(map(len, [header, *cells[-1]])) if number or header == "run" else None  # never cut
        grid.add_column(Text(header), justify="right" if number else "left", min_width=width, overflow="fold")
    for row in zip(*cells, strict=True):
        grid.add_row(*map(Text, row))
    console.print(grid, crop=False)


def _texts(column: "pd.Series[Any]") -> list[str]:
    """The cells of a column; numbers with as many decimals as the column needs, – for what is missing."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    style = "{}"
    if is_datetime64_any_dtype(column):
        style = "{:%Y-%m-%d %H:%M}"
    elif is_numeric_dtype(column):
        sizes = column.abs()[column != 0]
        digits = 0 if (sizes.dropna() % 1 == 0).all() else 4 if sizes.max() < 10 else 2 if sizes.max() < 100 else 1
        style = "{:.3g}" if digits and sizes.min() < 0.001 else f"{{:.{digits}f}}"
    return ["–" if missing else style.format(value) for value, missing in zip(column, column.isna(), strict=True)]


def check_columns(names: Sequence[str], table: "pd.DataFrame") -> None:
    """Raises ConfigError with the nearest right name where ``table`` lacks one of ``names``."""
    for name in names:
        if name not in table:
            hint = nearest(name, list(table)) or f" There are {', '.join(list(table)[:20])}, …; csv=… shows all."
            raise ConfigError(f"These runs have no column {name!r}.{hint}")


def sources(outputs: Path, uri: str | None) -> tuple[dict[RunFolder, State | None], list[Mlflow]]:
    """The runs that have a folder here, and every MLflow that may know of more."""
    given = address_given()
    elsewhere = (uri or given) and not outputs.exists()
    here = {} if elsewhere else {folders: read_state(folders.run) for folders in claimed(outputs)}
    noted = {state.uri for state in here.values() if state and state.kind == "mlflow"}
    if (outputs / "mlflow.db").exists():
        noted.add(None)
    stores = [Mlflow(address, outputs) for address in ([uri] if uri else sorted(noted, key=str))]
    if given and not uri and without_passwords(given) not in noted:
        try:
            stores.append(Mlflow(without_passwords(given), outputs))
        except ConfigError as error:  # maybe of another project: no reason to hide the runs that are here
            if not here:
                raise
            log.warning("%s Left out, since runs were found in %s.", error, outputs)
    return here, stores


def _local(folders: RunFolder, state: State) -> dict[str, Any]:
    """A run without MLflow, from its own folder, as ``Mlflow.search`` gives those of MLflow."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    params: dict[str, str] = {}
    dataset, times = None, []
    for report in Journal(folders.run).read():
        tags |= report.get("tags", {}) | ({"error": report["error"]} if "error" in report else {})
        metrics |= report.get("metrics", {})
        params = report.get("params", {}) | params
        dataset = report.get("dataset", {}).get("name", dataset)
        times += [report["time"]] if "time" in report else []
    return {
        "run_id": folders.run_id,
        "name": state.name,
        "status": state.true_status,
        "experiment": state.experiment,
        "dataset": dataset,
        "started": times[0] if times else None,
        "ended": times[-1] if times and state.true_status != "RUNNING" else None,
        "tags": {key: value for key, value in tags.items() if value or key != "error"},
        "metrics": metrics,
        "params": params,
    }


def _frame(records: Sequence[dict[str, Any]], folders: Mapping[str, RunFolder]) -> "pd.DataFrame":
    import pandas as pd

    own = pd.DataFrame([_own(record, folders.get(record["run_id"])) for record in records], columns=_OWN)
    own["started"] = pd.to_datetime(own["started"], unit="ms", utc=True)
    tags, params = (pd.DataFrame([record[kind] for record in records]) for kind in ("tags", "params"))
    metrics = pd.DataFrame([{PLAIN.get(name, name): v for name, v in record["metrics"].items()} for record in records])
    known = {"run_id", "run_id_short", "predictions", *(name for name in tags if name.startswith(("mlflow.", "seg.")))}
    tags = tags.drop(columns=known & set(tags))
    metrics = metrics.rename(columns={name: f"metrics.{name}" for name in metrics if name in own})
    tags = tags.rename(columns={name: f"tags.{name}" for name in tags if name in own or name in metrics})
    params = params.replace("None", float("nan")).add_prefix("params.")
    table = pd.concat([own, tags, metrics, params], axis=1)
    for name in {*params, *_NUMBERED} & set(table):
        try:
            table[name] = pd.to_numeric(table[name])
        except ValueError:
            continue  # text
    return table


def _own(record: dict[str, Any], folders: RunFolder | None) -> dict[str, Any]:
    tags, started = record["tags"], record["started"]
    ended = time.time() * 1000 if record["status"] == "RUNNING" else record["ended"]
    dataset, slash, _ = record["experiment"].partition("/")
    return {
        "run_id": record["run_id"],
        "run_id_short": folders.short if folders else tags.get("run_id_short", record["run_id"][:8]),
        "name": record["name"],
        "status": "PRUNED" if record["status"] == "FINISHED" and tags.get("status") == "pruned" else record["status"],
        "started": started,
        "seconds": (ended - started) / 1000 if started and ended else float("nan"),
        "experiment": record["experiment"],
        "dataset": record["dataset"] or (dataset if slash else None),
        "parent": tags.get(PARENT),
        "predictions": str(folders.predictions) if folders else tags.get("predictions"),
    }


def _with_case(
    table: "pd.DataFrame", case: str, folders: Mapping[str, RunFolder], homes: Mapping[str, Mlflow]
) -> "pd.DataFrame":
    """The runs that tested ``case``, with their scores in it and their picture of it."""
    import pandas as pd

    from seg.metrics import METRICS, read_scores

    rows: list[dict[str, Any]] = []
    tested: set[str] = set()
    for run_id, predictions in zip(table["run_id"], table["predictions"], strict=True):
        scores = read_scores(StringIO(_scores(run_id, folders.get(run_id), homes.get(run_id))))
        tested |= set(scores["case"])
        mine = scores[scores["case"] == case]
        if len(mine):
            pictures = sorted(Path(str(predictions)).glob(f"{glob.escape(case)}_Slice_*.png"))
            means = {f"case_{metric}": mine[metric].mean() for metric in METRICS}
            picture = str(pictures[len(pictures) // 2]) if pictures else None  # the middle one of several slices
            rows.append({"run_id": run_id, **means, "picture": picture})
    if not rows:
        hint = nearest(case, sorted(tested)) or f" They tested {', '.join(sorted(tested)[:10]) or 'none at all'}."
        raise ConfigError(f"None of these {len(table)} runs tested the case {case}.{hint}")
    return arranged(table.merge(pd.DataFrame(rows), on="run_id"), "case_dice")


def _scores(run_id: str, folders: RunFolder | None, home: Mlflow | None) -> str:
    """The run's table of test cases; only its header where it has none."""
    if folders:
        return folders.cases.read_text() if folders.cases.exists() else "case\n"
    return (home and home.read_artifact(run_id, "data/cases.csv")) or "case\n"
