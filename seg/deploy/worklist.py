"""Predicts many scans, one after the other, and reports on each; what is finished is not done again."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from seg.data.cases import Case
from seg.data.volumes import mask_ending
from seg.deploy.predictor import Predictor, compute, read_for
from seg.deploy.report import STAGES, Row, described, read_report, taken, timed, unfinished, write_report
from seg.engine.console import clock
from seg.errors import ConfigError, SegError, few
from seg.files import private_folder, sha256

log = logging.getLogger(__name__)


def predict_all(
    members: Sequence[Predictor], scans: Sequence[Case], output: Path, *, overwrite: bool = False
) -> list[str]:
    """Writes a mask and a row of the report for each scan, and gives the names of those that failed.

    ``report.json`` is ``{"format": 2, "scans": [row, …]}``, and ``report.csv`` the same as a table; docs/use.md says
    what a row has. Both are written anew after each scan.

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
    rows = {} if overwrite else read_report(output)
    by, begin, done, failed = "+".join(map(identity, members)), time.monotonic(), 0, []
    for number, scan in enumerate(scans, 1):
        if _is_finished(rows.get(scan.id), scan, by, output):
            log.info("%s is finished already", scan.id)
            continue
        rows[scan.id] = row = predicted(members, scan, by, output)
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
        write_report(output, rows)
    return failed


def identity(member: Predictor) -> str:
    """The package's id, or that of the run where the network was never packed."""
    return member.package.id or f"run_{member.package.origin['run_id']}"


def _mask(scan: Case, output: Path) -> Path:
    """The mask's file, of the format of its scan."""
    return output / f"{scan.id}{mask_ending(scan.images[0])}"


def predicted(members: Sequence[Predictor], scan: Case, by: str, output: Path) -> Row:
    """Writes the mask of one scan into ``output``; its row of the report, also where it failed."""
    mask, row, stages = _mask(scan, output), unfinished(scan.id, by), dict.fromkeys(STAGES, 0.0)
    try:
        with timed(stages, "reading"):
            inputs, ready = sha256(*scan.images), read_for(members, scan.images)
        with timed(stages, "computing"):
            found = compute(members, ready)
        with timed(stages, "writing"):
            found.save(mask)
            hashes = {"inputs_sha256": inputs, "mask_sha256": sha256(mask)}
    except (SegError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: PyTorch's, of memory too
        return row | taken(stages) | {"error": " ".join(str(error).split())[:500]}
    return row | taken(stages) | described(found) | hashes | {"status": "finished", "mask": mask.name}


def _is_finished(row: Row | None, scan: Case, by: str, output: Path) -> bool:
    """Whether the mask is there, and is that of this scan by these networks."""
    if row is None or row.get("status") != "finished" or row.get("package") != by:
        return False
    mask = _mask(scan, output)
    try:
        return (sha256(*scan.images), sha256(mask)) == (row["inputs_sha256"], row["mask_sha256"])
    except (OSError, KeyError):
        return False
