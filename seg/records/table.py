"""Runs as a table, whether MLflow or their own folders hold them.

``runs(Path("outputs"), study="attention")`` gives a pandas DataFrame, one row per run.
"""

import glob
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.errors import ConfigError, nearest, without_passwords
from seg.records.address import address_given
from seg.records.folder import RunFolder, claimed
from seg.records.journal import FILED, GONE, Journal, Recorded
from seg.records.mlflow import Mlflow
from seg.records.sink import PARENT
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
    complete: bool = False,
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
        complete: whether an MLflow with runs of ``sweep`` that does not answer is an error, not just a warning.

    Returns:
        One row per run: ``run_id``, ``run_id_short``, ``name``, ``status``, ``started``, ``seconds``, ``experiment``,
        ``dataset``, ``parent``, ``predictions``; then tags and last metrics by their names, and ``params.<key>``.
        A tag or metric that is named like another column is ``tags.<name>`` or ``metrics.<name>``.

    Raises:
        ConfigError: there is no folder ``outputs``, MLflow does not answer, or no run tested ``case``.
    """
    tags = {key: value for key, value in (("study", study), ("sweep", sweep), ("arm", arm)) if value is not None}
    here, stores = sources(outputs, uri, needed=sweep if complete else None)
    folders = {folders.run_id: folders for folders in here}
    answering = {store.noted for store in stores}
    records = [
        local(folder, state)
        for folder, state in here.items()
        if state and (state.kind != "mlflow" or (not uri and state.uri not in answering))
    ]
    homes: dict[str, Mlflow] = {}
    ended = {folder.run_id: state.status for folder, state in here.items() if state and state.status != "RUNNING"}
    for store in stores:
        found = store.search(run, tags)
        records += [replace(one, status=ended.get(one.run_id, one.status)) for one in found if one.run_id not in homes]
        homes |= {record.run_id: store for record in found}
    records += [record for store in stores for record in _lost(store, here, homes)]
    table = _frame(records, folders)
    kept = table["run_id"].str.startswith(run)
    for column, value in {**tags, "status": status and status.upper(), "dataset": dataset}.items():
        if value is not None:
            kept &= table[column] == value if column in table else False
    table = arranged(table[kept], "started")
    return table if case is None or table.empty else _with_case(table, case, folders, homes)


def scores_of(table: "pd.DataFrame", outputs: Path, uri: str | None = None) -> "pd.DataFrame":
    """The scores of all cases of the runs in ``table``, as in their ``cases.csv``, with their full ``run_id``.

    Beside them ``ece`` and ``ace`` of their ``calibration.csv``, which runs of earlier versions do not have.

    Args:
        table: as ``runs`` gives it.
        outputs: as there.
        uri: as there.

    Returns:
        One row per run, case and class; all but the scores is text.
    """
    import pandas as pd

    here, stores = sources(outputs, uri)
    folders = {folders.run_id: folders for folders in here}
    others = [run_id for run_id in table["run_id"] if run_id not in folders]
    homes: dict[str, Mlflow] = {}
    for store in stores:
        homes = {run_id: store for run_id, stage in store.stages(others).items() if stage == "active"} | homes
    parts = []
    for run_id in table["run_id"]:
        where = run_id, folders.get(run_id), homes.get(run_id)
        scores = _kept(*where, "cases")
        if len(scores) and len(calibration := _kept(*where, "calibration")):
            scores = scores.merge(calibration, on=["case", "class"], how="left")
        parts.append(scores.assign(run_id=run_id))
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


def check_columns(names: Sequence[str], table: "pd.DataFrame") -> None:
    """Raises ConfigError with the nearest right name where ``table`` lacks one of ``names``."""
    for name in names:
        if name not in table:
            hint = nearest(name, list(table)) or f" There are {', '.join(list(table)[:20])}, …; csv=… shows all."
            raise ConfigError(f"These runs have no column {name!r}.{hint}")


def sources(
    outputs: Path, uri: str | None, *, needed: str | None = None
) -> tuple[dict[RunFolder, State | None], list[Mlflow]]:
    """The runs that have a folder here, and every MLflow that may know of more.

    One that does not answer is left out with a warning where there are runs to show without it, unless runs of the
    sweep ``needed`` are there.
    """
    given = address_given()
    elsewhere = (uri or given) and not outputs.exists()
    here = {} if elsewhere else {folder: read_state(folder.run) for folder in claimed(outputs)}
    noted = {state.uri for state in here.values() if state and state.kind == "mlflow"}
    for folder in [folder for folder, state in here.items() if state is None]:
        log.warning("%s is left out: its state.json is missing or damaged.", folder.run)
    if (outputs / "mlflow.db").exists():
        noted.add(None)
    if uri:
        return here, [Mlflow(uri, outputs)]
    stores = []
    for address in sorted(noted | ({without_passwords(given)} if given else set()), key=str):
        try:
            stores.append(Mlflow(address, outputs))
        except ConfigError as error:
            there = [
                folder for folder, state in here.items() if state and (state.kind, state.uri) == ("mlflow", address)
            ]
            if not here or (needed and any(Journal(one.run).tags().get("sweep") == needed for one in there)):
                raise
            log.warning("%s Left out, since runs were found in %s.", error, outputs)
    return here, stores


def _lost(store: Mlflow, here: Mapping[RunFolder, State | None], homes: Mapping[str, Mlflow]) -> list[Recorded]:
    """The runs here that were recorded in ``store`` and have no trace there, nor in ``homes``: it is new, or a copy."""
    address = store.noted and without_passwords(store.noted)
    own = [(one, state) for one, state in here.items() if state and (state.kind, state.uri) == ("mlflow", address)]
    known = store.stages([folder.run_id for folder, _ in own if folder.run_id not in homes])
    lost = [local(folder, state) for folder, state in own if folder.run_id not in {*known, *homes}]
    if lost:
        log.warning("%s does not know %d of the runs here; they are shown from their folders.", store.name, len(lost))
    return lost


def local(folder: RunFolder, state: State) -> Recorded:
    """A run as its own folder has it."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    params: dict[str, str] = {}
    dataset, times, ended = None, [], False
    for report in Journal(folder.run).read():
        tags |= report.get("tags", {}) | ({"error": report["error"]} if "error" in report else {})
        metrics |= report.get("metrics", {})
        params = report.get("params", {}) | params
        dataset = report.get("dataset", {}).get("name", dataset)
        times += [report["time"]] if "time" in report and (not ended or "status" in report) else []
        ended = report.get("status", "" if ended else "RUNNING") != "RUNNING"  # what is added later is not of its time
    if state.true_status != state.status:
        tags["error"] = GONE
    return Recorded(
        folder.run_id,
        state.name,
        state.true_status,
        state.experiment,
        dataset,
        started=times[0] if times else None,
        ended=times[-1] if times else None,
        tags={key: value for key, value in tags.items() if value or key != "error"},
        metrics=metrics,
        params=params,
    )


def _frame(records: Sequence[Recorded], folders: Mapping[str, RunFolder]) -> "pd.DataFrame":
    import pandas as pd

    own = pd.DataFrame([_own(record, folders.get(record.run_id)) for record in records], columns=_OWN)
    own["started"] = pd.to_datetime(own["started"], unit="ms", utc=True)
    plain = {filed: name for name, filed in FILED.items()}
    tags = pd.DataFrame([record.tags for record in records])
    params = pd.DataFrame([record.params for record in records])
    metrics = pd.DataFrame([{plain.get(name, name): v for name, v in record.metrics.items()} for record in records])
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


def _own(record: Recorded, folder: RunFolder | None) -> dict[str, object]:
    tags, started = record.tags, record.started
    ended = time.time() * 1000 if record.status == "RUNNING" else record.ended
    dataset, slash, _ = record.experiment.partition("/")
    return {
        "run_id": record.run_id,
        "run_id_short": folder.short if folder else tags.get("run_id_short", record.run_id[:8]),
        "name": record.name,
        "status": "PRUNED" if record.status == "FINISHED" and tags.get("status") == "pruned" else record.status,
        "started": started,
        "seconds": (ended - started) / 1000 if started and ended else float("nan"),
        "experiment": record.experiment,
        "dataset": record.dataset or (dataset if slash else None),
        "parent": tags.get(PARENT),
        "predictions": str(folder.predictions) if folder else tags.get("predictions"),
    }


def _with_case(
    table: "pd.DataFrame", case: str, folders: Mapping[str, RunFolder], homes: Mapping[str, Mlflow]
) -> "pd.DataFrame":
    """The runs that tested ``case``, with their scores in it and their picture of it."""
    import pandas as pd

    from seg.metrics import METRICS

    rows: list[dict[str, Any]] = []
    tested: set[str] = set()
    for run_id, predictions in zip(table["run_id"], table["predictions"], strict=True):
        scores = _kept(run_id, folders.get(run_id), homes.get(run_id), "cases")
        tested |= set(scores["case"])
        mine = scores[scores["case"] == case]
        if len(mine):
            pictures = sorted(Path(str(predictions)).glob(f"{glob.escape(case)}_Slice_*.png"))
            means = {f"case_{metric}": mine[metric].mean() for metric in METRICS if metric in mine}
            picture = str(pictures[len(pictures) // 2]) if pictures else None  # the middle one of several slices
            rows.append({"run_id": run_id, **means, "picture": picture})
    if not rows:
        hint = nearest(case, sorted(tested)) or f" They tested {', '.join(sorted(tested)[:10]) or 'none at all'}."
        raise ConfigError(f"None of these {len(table)} runs tested the case {case}.{hint}")
    found = table.merge(pd.DataFrame(rows).drop(columns="picture"), on="run_id")
    drawn = {row["run_id"]: row["picture"] for row in rows}
    found["picture"] = pd.Series([drawn[run_id] for run_id in found["run_id"]], dtype=object)  # None stays None
    return arranged(found, "case_dice")


def _kept(run_id: str, folders: RunFolder | None, home: Mlflow | None, name: str) -> "pd.DataFrame":
    """One of the run's tables of its test cases; without a row where it has none."""
    from seg.metrics import read_scores

    if folders:
        path: Path = getattr(folders, name)
        return read_scores(path if path.exists() else StringIO("case\n"))
    return read_scores(StringIO((home and home.read_artifact(run_id, f"data/{name}.csv")) or "case\n"))
