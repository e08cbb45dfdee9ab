"""What came in is held beside what was learnt: what changed is found, what did not raises no alarm, names stay away."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift import ALL, CHANNELS, LIMITS, as_table, judged, learnt, report
from seg import drift as verb
from seg.config.command import read
from seg.config.options import CONF
from seg.deploy.arrivals import Period, arrivals
from seg.deploy.drift import by_week, drift
from seg.errors import ConfigError, DataError, DriftError


@dataclass
class Known:
    """What a package says of its network."""

    training: tuple[dict[str, Any], ...] = ()
    id: str = "p" * 64
    channels: tuple[str, ...] = CHANNELS
    origin: dict[str, str] = field(default_factory=lambda: {"run_id": "a" * 32, "data": "phantom"})


@dataclass
class Network:
    package: Any


def write(folder: Path, rows: list[dict[str, Any]], version: int = 2) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"format": version, "scans": rows}))
    return folder


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[pd.DataFrame, Path]]:
    """The command on ``outputs/served``, of a network with 60 training cases; its table, and its record's folder."""
    known = Known(tuple(learnt(60, np.random.default_rng(1))))
    monkeypatch.setattr("seg.deploy.choice.networks", lambda _: [Network(known)])

    def command(*arguments: str) -> tuple[pd.DataFrame, Path]:
        text = (CONF / "drift.yaml").read_text() + f"paths:\n  outputs: {tmp_path / 'outputs'}\n"
        before = {*(tmp_path / "outputs/runs").glob("run_*")}
        verb.main(read(text, ["package=x.zip", "tracking.kind=none", *arguments]))
        (run,) = {*(tmp_path / "outputs/runs").glob("run_*")} - before
        return pd.read_csv(run / "drift.csv").set_index("property"), run

    return command


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return tmp_path / "outputs/served"


def test_what_has_not_changed_raises_no_alarm(
    watched: Callable[..., tuple[pd.DataFrame, Path]], served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(served / "network", report(60, np.random.default_rng(2)))
    table, run = watched()
    assert not table["beyond"].any()
    assert table.loc["voxel_mm_z", "reference"] == "training cases"
    assert table.loc[["confidence_head", "failed"], "p"].isna().all(), "no training case has them"
    assert (run / "drift.png").stat().st_size > 10_000
    assert "Nothing can be said of confidence_body" in capsys.readouterr().out


def test_what_changed_ends_with_3_and_is_recorded(
    watched: Callable[..., tuple[pd.DataFrame, Path]], served: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    write(served / "a", report(60, rng, "2026-08-03"))
    write(served / "b", report(60, rng, "2026-10-05", thick=1, failed=0.4))
    with pytest.raises(DriftError, match=r"voxel_mm_z.*failed") as error:
        watched("since=2026-10-01")
    assert error.value.exit_code == 3
    (run,) = (tmp_path / "outputs/runs").iterdir()
    table = pd.read_csv(run / "drift.csv").set_index("property")
    assert table.index[table["beyond"]].tolist() == ["voxel_mm_z", "failed"]
    assert table.loc["voxel_mm_z", ["before", "now", "effect"]].tolist() == [1, 3, 1]
    assert table.loc["failed", "reference"] == "scans before 2026-10-01"
    reports = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    tags = {key: value for one in reports for key, value in one.get("tags", {}).items()}
    assert (tags["experiment_type"], tags["drift"]) == ("monitoring", "beyond")
    weeks = {one["step"]: one["metrics"] for one in reports if "week/voxel_mm_z" in one.get("metrics", {})}
    assert [week["week/voxel_mm_z"] for week in weeks.values()] == [1, 3]
    assert sorted(weeks) == [20260803, 20261005]
    assert reports[-1]["status"] == "FINISHED"
    assert "drift.png" in (run / "record.jsonl").read_text()
    table, _ = watched("until=2026-10-01")
    assert (table["before"]["voxel_mm_z"], table["now"]["voxel_mm_z"]) == (1, 1)


def test_two_times_are_compared(watched: Callable[..., tuple[pd.DataFrame, Path]], served: Path) -> None:
    rng = np.random.default_rng(2)
    write(served / "a", [*report(40, rng, "2026-08-03"), *report(40, rng, "2026-10-05")])
    table, _ = watched("since=2026-10-01", "against=2026-08-01..2026-09-01")
    assert set(table["reference"]) == {"scans 2026-08-01 to 2026-09-01"}
    assert set(table.loc[["failed", "voxel_mm_x"], "scans_before"]) <= {38, 39, 40}
    assert table["p"].notna().all()
    with pytest.raises(ConfigError, match="shares days with those looked at"):
        watched("since=2026-08-20", "against=2026-08-01..2026-09-01")


def test_of_few_scans_nothing_is_said(
    watched: Callable[..., tuple[pd.DataFrame, Path]], served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(served / "a", report(9, np.random.default_rng(2), thick=1.0, failed=0.0))
    table, _ = watched()
    assert table["p"].isna().all()
    assert not table["beyond"].any()
    assert "9 scans (all days): 0 of 19 properties compared" in capsys.readouterr().out
    table, _ = watched("since=2027-01-01")
    assert (table["scans"] == 0).all()


def test_a_scan_counts_once_and_other_networks_do_not(tmp_path: Path) -> None:
    rows = report(5, np.random.default_rng(0), failed=0.0)
    again = [row | {"case": f"again-{n}", "time": "2026-12-01T00:00:00+00:00"} for n, row in enumerate(rows[:3])]
    other = [row | {"package": "q" * 64, "inputs_sha256": row["case"]} for row in rows]
    known: Any = Known()
    folders = [write(tmp_path / "one", rows), write(tmp_path / "two", [*again, *other])]
    table = arrivals(folders, known)
    assert len(table) == 5
    assert (table["time"] < pd.Timestamp("2026-11-01", tz="UTC")).all()
    assert not any("job" in str(value) for value in table.to_numpy().ravel())
    ensemble = write(tmp_path / "three", [row | {"package": f"{'p' * 64}+{'r' * 64}"} for row in rows])
    assert len(arrivals([ensemble], known)) == 5
    with pytest.raises(DataError, match=r"predicted by this network.*but 2 by qqqq"):
        arrivals([write(tmp_path / "four", other[:2])], known)
    with pytest.raises(DataError, match=r"is damaged \(KeyError: 'risk'\)"):
        arrivals([write(tmp_path / "five", [{k: v for k, v in rows[0].items() if k != "risk"}])], known)


def test_headers_that_were_rounded_are_no_drift() -> None:
    rows = report(40, np.random.default_rng(0), failed=0.0)
    for row in rows:
        row["scan"]["spacing_mm"][0] = 0.4882812
    assert set(as_table(rows)["voxel_mm_x"]) == {0.488}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["since=2026-13-01"], "give days, such as 2026-10-01"),
        (["since=2026-10-01", "until=2026-09-01"], "is not after"),
        (["against=2026-07-01"], "give two days"),
        (["limit=33", "alpha=nan"], r"limit is 33; it must be between 0 and 1\.\s+2\. alpha is nan"),
        (["run=a1b2c3d4"], "Give the network that predicted the scans"),
    ],
)
def test_days_and_network_must_be_clear(
    watched: Callable[..., tuple[pd.DataFrame, Path]], served: Path, given: list[str], words: str
) -> None:
    write(served / "a", report(12, np.random.default_rng(2)))
    with pytest.raises(ConfigError, match=words):
        watched(*given)


def test_places_without_a_report_are_named_together(
    watched: Callable[..., tuple[pd.DataFrame, Path]], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"served: there is no report\.json"):
        watched()
    with pytest.raises(DataError, match=r"(?s)2 faults.*one: .*two: "):
        watched(f"reports=[{tmp_path / 'one'},{tmp_path / 'two'}]")
    write(tmp_path / "old", report(12, np.random.default_rng(2)), version=1)
    with pytest.raises(DataError, match="No scan in"):
        watched(f"reports={tmp_path / 'old' / 'report.json'}")


@pytest.mark.slow
def test_logs_without_drift_raise_few_alarms_and_a_change_is_found() -> None:
    rng = np.random.default_rng(0)
    alarms = sum(bool(judged(30, rng).beyond) for _ in range(30))
    assert alarms <= 2, "0.3 are allowed; more than 2 have a chance of 1 in 300"
    found = [judged(60, rng, brighter=1.0).beyond for _ in range(8)]
    assert sum(any(name.startswith("intensity") for name in one) for one in found) >= 7


@pytest.mark.slow
def test_a_family_keeps_its_level_whatever_the_effect() -> None:
    rng, alarms = np.random.default_rng(0), 0
    tests = type(LIMITS)(effect=0.0, share=0.0, alpha=0.05)
    for _ in range(150):
        now, before = (pd.DataFrame(rng.normal(size=(n, 10)).round(1), columns=list("abcdefghij")) for n in (30, 120))
        alarms += bool(drift(now, [("before", before)], ALL, tests).beyond)
    assert alarms <= 15, "7.5 are allowed; more than 15 have a chance of 1 in 200"


def test_weeks_begin_on_mondays() -> None:
    times = pd.to_datetime(["2026-10-04T23:00Z", "2026-10-05T01:00Z", "2026-10-11T23:59Z"])
    weeks = by_week(pd.DataFrame({"time": times, "voxel_mm_x": [1.0, 2.0, 4.0], "failed": [0.0, 0.0, 1.0]}))
    assert weeks[20260928] == {"scans": 1, "week/voxel_mm_x": 1, "week/failed": 0}
    assert weeks[20261005] == {"scans": 2, "week/voxel_mm_x": 3, "week/failed": 0.5}


def test_periods_are_half_open() -> None:
    table = pd.DataFrame({"time": pd.to_datetime(["2026-09-30T23:59Z", "2026-10-01T00:00Z", "2026-10-02T00:00Z"])})
    assert [*Period.between("2026-10-01", "2026-10-02", "x").of(table).index] == [1]
    assert [*Period.between(None, "2026-10-01", "x").of(table).index] == [0]
