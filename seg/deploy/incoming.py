"""A scan that somebody sent to the service: checked, predicted, packed for the page, and noted in the log."""

import gzip
import json
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from seg.data.cases import Case
from seg.data.grids import reading
from seg.data.volumes import FORMATS, MGH, NIFTI, ending, read_header
from seg.deploy.jobs import Job
from seg.deploy.predictor import Predictor
from seg.deploy.report import Row, read_report, write_report
from seg.deploy.worklist import identity, predicted
from seg.engine.inference import Slices
from seg.errors import DataError, SegError, counted, times
from seg.files import atomic_write
from seg.pages.volumes import pack, read_volumes
from seg.regions import structures
from seg.study.drawing import class_colors

# Headers of other formats may name a further file, and that would be one of the service's own machine.
ENDINGS = tuple(end for end, kind in FORMATS.items() if kind in (NIFTI, MGH))
log = logging.getLogger(__name__)
VIEW = "view.json"  # of a job's folder: the volumes for the page
_LOGGED = 5000  # latest scans in the log
_VIEW_BYTES = 8_000_000
_RESULT = (
    *("volumes_ml", "risk", "findings", "expected_dice", "no_promise", "confidence", "stages", "seconds"),
    *("package", "mask"),
)
_BEFORE_VOXELS = 2**20  # bytes of a file that may come before its voxels
_AT_ONCE = 2**20


class Incoming:
    """The network, or several that predict together, and the log of what they were asked: ``report.json``.

    The log is a report as ``seg.predict`` writes it, whose cases are called by the ids of their jobs.
    """

    def __init__(self, members: Sequence[Predictor], log_folder: Path, *, max_voxels: float) -> None:
        self.members, self.max_voxels, self.channels = members, max_voxels, members[0].package.channels
        self.network = "+".join(map(identity, members))
        self._log_folder, self._rows = log_folder, [*read_report(log_folder, to_write=True).values()]

    def about(self) -> dict[str, Any]:
        """What a user should know of the network."""
        package = self.members[0].package
        names = [*package.classes][1:]
        looks = zip(names, class_colors(len(names)), structures(len(names), package.within), strict=True)
        return {
            "network": self.network,
            "data": package.origin["data"],
            "channels": self.channels,
            "endings": ENDINGS,
            "classes": [
                {"name": name, "value": package.classes[name], "color": color, "indices": indices}
                for name, color, indices in looks
            ],
        }

    def check(self, images: Sequence[Path]) -> None:
        """Reads the headers, and each file to its end, so that what cannot be right is refused at once.

        Raises:
            DataError: a file is damaged, or not of its format; it is too large once it is unpacked; or there are not as
                many channels as the network takes.
        """
        found = 0
        for path in images:
            header = read_header(path)
            voxels = math.prod(header.shape)
            if voxels > self.max_voxels:
                raise DataError(
                    f"{path}: {times(header.shape)} voxels. The service takes up to {self.max_voxels:.3g}: set "
                    "max_voxels where it is started, or crop the scan."
                )
            _unpacked(path, voxels * header.dtype.itemsize + _BEFORE_VOXELS)
            found += header.shape[3] if len(header.shape) == 4 else 1
        if found != len(self.channels):
            raise DataError(
                f"The scan has {counted(found, 'channel')}. The network takes {len(self.channels)} "
                f"({', '.join(self.channels)}): send a file for each, in this order, or one file with all."
            )

    def __call__(self, job: Job) -> Row:
        """Writes the mask, and the volumes for the page, into the job's folder; gives what is said of the scan.

        Raises:
            CancelledError: the job was cancelled meanwhile.
            SegError: it cannot be predicted, with the reason.
        """
        scan = Case(job.id, "", job.images, None)
        passes = _Passes(job)
        with ExitStack() as watched:
            for network in {member.network for member in self.members}:
                watched.enter_context(network.register_forward_pre_hook(passes.begin))
            row = predicted([passes.of(member) for member in self.members], scan, self.network, job.folder)
        row["error"] = outside(row["error"], job.folder)
        self._add(row)
        if row["status"] == "failed":
            raise SegError(row["error"])
        if job.view:
            try:
                self._pack(replace(scan, label=job.folder / row["mask"]))
            except (SegError, MemoryError) as error:  # the mask is there all the same
                log.warning("job %s has nothing to look at: %s", job.id, error)
        return {key: row[key] for key in _RESULT}

    def _pack(self, scan: Case) -> None:
        assert scan.label
        volumes = read_volumes(scan, [*self.members[0].classes.values()], [], 0)
        if packed := pack(volumes, _VIEW_BYTES):
            about = packed.about | {"here": []}
            atomic_write(scan.label.parent / VIEW, json.dumps({"about": about, "payload": packed.payload}))

    def _add(self, row: Row) -> None:
        rows = sorted([*self._rows, row], key=lambda row: str(row["time"]))
        self._rows = rows[-_LOGGED:]
        write_report(self._log_folder, {row["case"]: row for row in self._rows})


def divided(body: Path, sizes: Sequence[int]) -> tuple[Path, ...]:
    """The files in a body, one after the other, as files of their own.

    Raises:
        DataError: the body has another size than they.
    """
    if sum(sizes) not in (0, size := body.stat().st_size):
        raise DataError(f"The body has {size} bytes, and sizes says {sum(sizes)}. It must have the bytes of each file.")
    if len(sizes) == 1:
        return (body,)
    found = tuple(body.with_name(f"channel{number}{ending(body)}") for number in range(1, len(sizes) + 1))
    with body.open("rb") as file:
        for path, size in zip(found, sizes, strict=True):
            with path.open("xb") as part:
                while piece := file.read(min(size - part.tell(), _AT_ONCE)):
                    part.write(piece)
    body.unlink()
    return found


def outside(text: str, folder: Path) -> str:
    """A message without the place where the service keeps its files."""
    return text.replace(f"{folder}/", "")


def _unpacked(path: Path, limit: int) -> None:
    """Reads a packed file to its end, in pieces: its own size says nothing of what is in it."""
    with reading(path, "gzip"), path.open("rb") as file:
        packed, size = file.read(2) == b"\x1f\x8b", 0
        file.seek(0)
        content = gzip.GzipFile(fileobj=file)
        while packed and (piece := content.read(_AT_ONCE)):
            size += len(piece)
            if size > limit:
                raise DataError("there is more in it than its header says. Copy or convert it again.")


class _Passes:
    """Counts the forward passes of the networks for a job, and ends them where the job is cancelled."""

    def __init__(self, job: Job) -> None:
        self.job, self.done, self.total = job, 0, 0

    def of(self, member: Predictor) -> Predictor:
        """The same network, watched."""

        def predict(network: nn.Module, image: np.ndarray, *, axis: int | None = None) -> Slices:
            found = member.predict(network, image, axis=axis)
            self.total += found.passes
            return found

        return replace(member, predict=predict)

    def begin(self, *_: object) -> None:
        """Before each forward pass."""
        self.job.note(min(1.0, self.done / max(1, self.total)))
        self.done += 1
