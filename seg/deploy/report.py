"""The report on predicted scans, ``report.json``, and the same as a table."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from seg.deploy.predictor import Prediction
from seg.errors import times
from seg.files import atomic_write

log = logging.getLogger(__name__)
FORMAT = 2
STAGES = ("reading", "computing", "writing")
NAME, TABLE = "report.json", "report.csv"
_BY_CLASS = {"volumes_ml": "volume_ml", "expected_dice": "expected_dice", "confidence": "confidence"}
Row = dict[str, Any]


def unfinished(case: str, by: str) -> Row:
    """The row of a scan that is not predicted; docs/predict.md says what is in a row.

    Args:
        case: its name.
        by: ids of the networks.
    """
    row: Row = {"case": case, "status": "failed", "error": "", "mask": "", "package": by, "time": now(), "seconds": 0.0}
    row |= {"stages": dict.fromkeys(STAGES, 0.0), "peak_mb": 0.0, "inputs_sha256": "", "mask_sha256": ""}
    row |= {"scan": {"shape": [], "spacing_mm": [], "intensity": []}, "volumes_ml": {}, "confidence": {}}
    return row | {"risk": "", "findings": [], "expected_dice": {}, "no_promise": ""}


def described(found: Prediction) -> Row:
    """What a row says of a prediction."""
    seen = found.observed
    return {
        "scan": {
            "shape": [*seen.shape],
            "spacing_mm": [*seen.spacing_mm],
            "unit": seen.unit,
            "intensity": [*seen.intensity],
        },
        "volumes_ml": dict(found.volumes_ml),
        "confidence": dict(seen.confidence),
        "risk": found.risk,
        "findings": [finding.text for finding in found.findings],
        "no_promise": found.no_promise,
        "expected_dice": {name: [one.dice, one.low, one.high] for name, one in found.expected_dice.items()},
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_report(folder: Path, *, to_write: bool = False) -> dict[str, Row]:
    """The rows by case; none where there is no report, or one that is damaged or of another version.

    Such a one becomes ``report.json.old`` where another is ``to_write`` in its place.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] == FORMAT:
            return {row["case"]: row for row in content["scans"]}
        fault = f"of format {content['format']}, this version writes {FORMAT}"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        fault = "damaged"
    log.warning("%s is %s: it is not used%s.", path, fault, f", and kept as {NAME}.old" if to_write else "")
    if to_write:
        path.replace(folder / f"{NAME}.old")
    return {}


def write_report(folder: Path, rows: Mapping[str, Row]) -> None:
    """Writes ``report.json`` and ``report.csv``, each whole or not at all."""
    listed = [rows[name] for name in sorted(rows)]
    atomic_write(folder / NAME, json.dumps({"format": FORMAT, "scans": listed}, indent=1))
    atomic_write(folder / TABLE, pd.DataFrame([_columns(row) for row in listed]).to_csv(index=False))


def _columns(row: Row) -> Row:
    """A row of the report as one of a table: texts and numbers."""
    plain = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
    plain |= {f"seconds_{stage}": seconds for stage, seconds in row["stages"].items()}
    plain |= {key: times(row["scan"][key]) for key in ("shape", "spacing_mm")} | {"unit": row["scan"].get("unit", "")}
    for key, column in _BY_CLASS.items():
        for name, value in row[key].items():
            numbers = zip(("", "_low", "_high"), value if isinstance(value, list) else [value], strict=False)
            plain |= {f"{column}_{name}{end}": number for end, number in numbers}
    return plain | {"findings": "; ".join(row["findings"])}
