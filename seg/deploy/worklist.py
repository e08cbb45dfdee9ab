"""Predicts many scans and reports on each; what is finished is not done again.

While one scan is computed, the next is read and the mask of the last is written, each by a thread of its own.
"""

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from seg.data.cases import Case
from seg.data.formats import MAPS
from seg.data.volumes import files_of, mask_ending
from seg.deploy.findings import spelled
from seg.deploy.maps import Maps
from seg.deploy.predictor import NO_MAPS, Prediction, Predictor, Ready, compute, read_for
from seg.deploy.report import NAME, Row, described, now, read_report, unfinished, write_report
from seg.engine.console import clock
from seg.engine.device import peak_mib
from seg.errors import ConfigError, SegError, few
from seg.files import private_folder, sha256
from seg.records.folder import one_at_a_time

log = logging.getLogger(__name__)
_LARGE = 2**28  # bytes of a scan beside which no other is held in memory: the next is read after it
_REPORT_EVERY = 1.0  # seconds, at least; and writing the report takes a twentieth of the time at most


def predict_all(
    members: Sequence[Predictor],
    scans: Sequence[Case],
    output: Path,
    *,
    overwrite: bool = False,
    maps: Collection[str] = (),
) -> list[str]:
    """Writes a mask and a row of the report for each scan, and gives the names of those that failed.

    ``report.json`` is ``{"format": 2, "scans": [row, …]}``, and ``report.csv`` the same as a table; docs/predict.md
    says what a row has. Both are written anew about every second, and at the end, however that comes; several processes
    may each predict a part of the scans into one folder.

    Args:
        members: networks of the same classes and channels.
        scans: to be predicted.
        output: folder; made where it is missing.
        overwrite: whether to predict again what is finished.
        maps: those to be written besides, ``probabilities`` or ``disagreement``, each into a folder of its name.

    Raises:
        ConfigError: ``output`` is no folder, or has files of the masks' names that are scans, or that it did not make.
    """
    report = _opened(scans, output, overwrite=overwrite)
    by, begin, computed, failed = "+".join(map(identity, members)), time.monotonic(), 0, list[str]()
    for name in maps:
        private_folder(output / name)
    wanted = [Maps(**{name: output / name / f"{scan.id}.nii.gz" for name in maps}) for scan in scans]
    jobs = [_Job(scan, _mask(scan, output), members, by, of) for scan, of in zip(scans, wanted, strict=True)]

    def read(job: _Job) -> None:
        job.read(None if overwrite else report.rows.get(job.scan.id))

    def write(job: _Job) -> None:
        nonlocal computed
        if job.finished_before:
            log.info("%s is finished already", job.scan.id)
            return
        row, computed, old = job.write(), computed + 1, report.rows.get(job.scan.id, {})
        if old.get("status") == row["status"] == "failed" and job.is_again(old):
            row["time"] = old["time"]  # when it first came: a scan that fails each night is no new arrival
        report.add(row)
        _remove_old(job, old, row, [output / name / f"{job.scan.id}.nii.gz" for name in {*MAPS} - {*maps}])
        if row["status"] == "failed":
            failed.append(job.scan.id)
        _tell(row, (time.monotonic() - begin) / computed * (len(jobs) - 1 - jobs.index(job)))

    try:
        _overlapped(jobs, read, write)
    finally:
        report.write()
    return failed


def _opened(scans: Sequence[Case], output: Path, *, overwrite: bool) -> "_Report":
    """Makes the folder, and reads its report; ConfigError where a mask would take the place of something else."""
    images = {image.resolve() for scan in scans for image in scan.images}
    if own := [scan.id for scan in scans if _mask(scan, output).resolve() in images]:
        raise ConfigError(f"The masks of {few(own)} would take the place of scans. Set another output.")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file. Set output to a folder, which need not exist.")
    private_folder(output)
    ours = (output / NAME).exists()
    report = _Report(output, read_report(output, to_write=True))
    strange = [scan.id for scan in scans if _mask(scan, output).exists() and scan.id not in report.rows]
    if strange and not overwrite and not ours:
        raise ConfigError(
            f"{output} has files of the masks' names, and no report of a prediction: {few(strange)}. Set another "
            "output, or overwrite=true."
        )
    report.write()  # at once: what a process leaves that is killed is known to be its own
    return report


def _remove_old(job: "_Job", old: Row, row: Row, maps: Sequence[Path]) -> None:
    """Removes what another network, or the scan as it was, left: the mask of one that fails now, the maps of others."""
    if not old or not row["inputs_sha256"] or job.is_again(old):
        return
    if row["status"] == "failed" and job.mask.exists() and sha256(job.mask) == old["mask_sha256"]:
        job.mask.unlink()
    for path in maps if row["status"] == "finished" else ():
        path.unlink(missing_ok=True)


def _overlapped(jobs: Sequence["_Job"], read: Callable[["_Job"], None], write: Callable[["_Job"], None]) -> None:
    """Reads, computes and writes each; after an error or a Ctrl-C what is being written is finished first."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading, writing = reader.submit(read, jobs[0]), Future[None]()
        writing.set_result(None)
        for job, following in zip(jobs, [*jobs[1:], None], strict=True):
            reading.result()
            large = job.is_large
            if following and not large:
                reading = reader.submit(read, following)
            job.compute()
            if following and large:
                reading = reader.submit(read, following)
            writing.result()
            writing = writer.submit(write, job)
        writing.result()


def _tell(row: Row, seconds_left: float) -> None:
    if row["status"] == "failed":
        log.warning("%s failed: %s", row["case"], row["error"])
        return
    unit = row["scan"]["unit"]
    volumes = ", ".join(f"{name} {spelled(volume, unit)}" for name, volume in row["volumes_ml"].items())
    log.info("%s  %s  %.1f s  %s left", row["case"], volumes, row["seconds"], clock(seconds_left))
    if row["findings"]:
        log.warning("%s: risk %s: %s", row["case"], row["risk"], "; ".join(row["findings"]))


class _Report:
    """The rows of a folder, and when they are written to its disk beside those that other processes write there."""

    def __init__(self, folder: Path, rows: dict[str, Row]) -> None:
        self.folder, self.rows, self.due = folder, rows, 0.0
        self._own: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        self._own[row["case"]] = row
        if time.monotonic() >= self.due:
            self.write()

    def write(self) -> None:
        begin = time.monotonic()
        with one_at_a_time(self.folder):
            write_report(self.folder, read_report(self.folder) | self._own)
        self.due = time.monotonic() + max(_REPORT_EVERY, 20 * (time.monotonic() - begin))


class _Job:
    """One scan on its way. What goes wrong in a stage becomes its error, and the later stages have nothing to do."""

    def __init__(self, scan: Case, mask: Path, members: Sequence[Predictor], by: str, maps: Maps = NO_MAPS) -> None:
        self.scan, self.mask, self.members, self.by, self.maps = scan, mask, members, by, maps
        self.row = unfinished(scan.id, by)
        self.finished_before = False
        self.ready: Ready | None = None
        self.found: Prediction | None = None

    @property
    def is_large(self) -> bool:
        return self.ready is not None and self.ready.scan.image.nbytes > _LARGE

    def read(self, earlier: Row | None) -> None:
        """Reads the scan, unless its mask is there and is by these networks."""
        with self._stage("reading"):
            self.row["inputs_sha256"] = sha256(*files_of(self.scan.images))
            self.finished_before = earlier is not None and self._is_finished(earlier)
            if not self.finished_before:
                self.ready = read_for(self.members, self.scan.images)

    def compute(self) -> None:
        with self._stage("computing"):
            ready, self.ready = self.ready, None
            if ready is not None:
                self.found = compute(self.members, ready, self.maps)

    def write(self) -> Row:
        """Writes the mask; the row of the report."""
        with self._stage("writing"):
            found, self.found = self.found, None
            if found is not None:
                found.save(self.mask)
                self.row |= described(found) | {"mask": self.mask.name, "mask_sha256": sha256(self.mask)}
                self.row["status"] = "finished"
        return self.row | {"time": now(), "seconds": sum(self.row["stages"].values()), "peak_mb": round(peak_mib(), 1)}

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        except (SegError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: PyTorch's, of memory too
            self.row["error"] = " ".join(str(error).split())[:500] or type(error).__name__
        finally:
            self.row["stages"][name] = time.perf_counter() - begin

    def is_again(self, row: Row) -> bool:
        """Whether a row is of the same files by these networks; earlier versions did not note the weights of a run."""
        by = (self.by, re.sub("@[0-9a-f]+", "", self.by))
        return row["package"] in by and row["inputs_sha256"] == self.row["inputs_sha256"]

    def _is_finished(self, row: Row) -> bool:
        if row["status"] != "finished" or not self.is_again(row):
            return False
        try:
            return sha256(self.mask) == row["mask_sha256"] and all(path.exists() for path in self.maps.wanted)
        except OSError:
            return False


def identity(member: Predictor) -> str:
    """The package's id, or that of the run and its weights where the network was never packed."""
    origin = member.package.origin
    return member.package.id or f"run_{origin['run_id']}@{origin['weights']}"


def predicted(members: Sequence[Predictor], scan: Case, by: str, output: Path) -> Row:
    """Writes the mask of one scan into ``output``; its row of the report, also where it failed."""
    job = _Job(scan, _mask(scan, output), members, by)
    job.read(None)
    job.compute()
    return job.write()


def _mask(scan: Case, output: Path) -> Path:
    """The mask's file, of the format of its scan."""
    return output / f"{scan.id}{mask_ending(scan.images[0])}"
