"""Predicts many scans, one after the other, and reports on each; what is finished is not done again."""

import csv
import io
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg.data.cases import Case
from seg.data.volumes import mask_ending
from seg.deploy.predictor import Predictor, predict_together
from seg.engine.console import clock
from seg.errors import ConfigError, SegError, few
from seg.files import atomic_write, private_folder, sha256

log = logging.getLogger(__name__)
FORMAT = 1
Row = dict[str, Any]


def predict_all(
    members: Sequence[Predictor], scans: Sequence[Case], output: Path, *, overwrite: bool = False
) -> list[str]:
    """Writes a mask and a row of the report for each scan, and gives the names of those that failed.

    ``report.json`` is ``{"format": 1, "scans": [row, …]}``, and ``report.csv`` the same as a table. A row has ``case``,
    ``status`` (finished or failed), ``error``, ``mask`` (file name), ``seconds``, ``package`` (ids of the networks),
    ``inputs_sha256``, ``mask_sha256``, ``volumes_ml`` by class, ``risk``, ``findings`` (sentences), and
    ``expected_dice`` by class (mean, low, high), empty where nothing can be promised. Both are
    written anew after each scan.

    Args:
        members: networks of the same classes and channels.
        scans: to be predicted.
        output: folder; made where it is missing.
        overwrite: whether to predict again what is finished.

    Raises:
        ConfigError: ``output`` is no folder; or it is where the scans are, and they have the masks' names.
    """
    if own := [scan.id for scan in scans if _mask(scan, output).resolve() in {p.resolve() for p in scan.images}]:
        raise ConfigError(f"The masks of {few(own)} would take the place of the scans themselves. Set another output.")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file. Set output to a folder, which need not exist.")
    private_folder(output)
    rows = {} if overwrite else _earlier(output / "report.json")
    by, begin, done, failed = "+".join(map(identity, members)), time.monotonic(), 0, []
    for number, scan in enumerate(scans, 1):
        if _is_finished(rows.get(scan.id), scan, by, output):
            log.info("%s is finished already", scan.id)
            continue
        rows[scan.id] = row = _predicted(members, scan, by, output)
        done += 1
        left = (time.monotonic() - begin) / done * (len(scans) - number)
        if row["status"] == "failed":
            failed.append(scan.id)
            log.warning("%s failed: %s", scan.id, row["error"])
        else:
            volumes = ", ".join(f"{name} {volume:.3g} ml" for name, volume in row["volumes_ml"].items())
            log.info("%s  %s  %.1f s  %s left", scan.id, volumes, row["seconds"], clock(left))
            if row["findings"]:
                log.warning("%s: risk %s: %s", scan.id, row["risk"], "; ".join(row["findings"]))
        _write(output, rows)
    return failed


def identity(member: Predictor) -> str:
    """The package's id, or that of the run where the network was never packed."""
    return member.package.id or f"run_{member.package.origin['run_id']}"


def _mask(scan: Case, output: Path) -> Path:
    """The mask's file, of the format of its scan."""
    return output / f"{scan.id}{mask_ending(scan.images[0])}"


def _predicted(members: Sequence[Predictor], scan: Case, by: str, output: Path) -> Row:
    mask, begin = _mask(scan, output), time.monotonic()
    row: Row = {"case": scan.id, "status": "failed", "error": "", "mask": "", "seconds": 0.0, "package": by}
    row |= {"inputs_sha256": "", "mask_sha256": "", "volumes_ml": {}, "risk": "", "findings": []}
    row |= {"expected_dice": {}}
    try:
        found = predict_together(members, *scan.images)
        found.save(mask)
    except (SegError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: PyTorch's, of memory too
        return row | {"error": " ".join(str(error).split())[:500], "seconds": time.monotonic() - begin}
    return row | {
        "status": "finished",
        "mask": mask.name,
        "seconds": time.monotonic() - begin,
        "inputs_sha256": sha256(*scan.images),
        "mask_sha256": sha256(mask),
        "volumes_ml": found.volumes_ml,
        "risk": found.risk,
        "findings": [finding.text for finding in found.findings],
        "expected_dice": {name: [one.dice, one.low, one.high] for name, one in found.expected_dice.items()},
    }


def _is_finished(row: Row | None, scan: Case, by: str, output: Path) -> bool:
    """Whether the mask is there, and is that of this scan by these networks."""
    if row is None or row.get("status") != "finished" or row.get("package") != by:
        return False
    mask = _mask(scan, output)
    try:
        return (sha256(*scan.images), sha256(mask)) == (row["inputs_sha256"], row["mask_sha256"])
    except (OSError, KeyError):
        return False


def _earlier(path: Path) -> dict[str, Row]:
    """The rows of an earlier command; none where there was no such, or where its report is damaged."""
    try:
        return {row["case"]: row for row in json.loads(path.read_text("utf-8"))["scans"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s is damaged; every scan is predicted again.", path)
        return {}


def _write(output: Path, rows: dict[str, Row]) -> None:
    listed = [rows[name] for name in sorted(rows)]
    atomic_write(output / "report.json", json.dumps({"format": FORMAT, "scans": listed}, indent=1))
    flat = [_columns(row) for row in listed]
    table = io.StringIO()
    writer = csv.DictWriter(table, dict.fromkeys(key for row in flat for key in row), restval="")
    writer.writeheader()
    writer.writerows(flat)
    atomic_write(output / "report.csv", table.getvalue())


def _columns(row: Row) -> Row:
    """A row of the report as one of a table."""
    plain = {key: value for key, value in row.items() if key not in ("volumes_ml", "findings", "expected_dice")}
    plain |= {f"volume_ml_{name}": volume for name, volume in row["volumes_ml"].items()}
    plain |= {f"expected_dice_{name}": expected[0] for name, expected in row.get("expected_dice", {}).items()}
    return plain | {"findings": "; ".join(row.get("findings", []))}
