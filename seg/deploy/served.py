"""What ``mlflow models serve`` and ``mlflow.pyfunc.load_model`` run: a package, asked by tables with a row per scan.

MLflow copies this file into the model's folder and runs it from there, beside the code of seg.
"""

import base64
import binascii
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Map

from seg.data.volumes import files_of
from seg.deploy.predictor import Predictor
from seg.deploy.report import described
from seg.errors import DataError, SegError

log = logging.getLogger(__name__)
FOLDER = "SEG_SERVE_FOLDER"
"""The variable that names the folder of which files may be asked for by their paths."""


def columns(channels: int) -> list[str]:
    """Of the input: ``image``, ``image2``, …"""
    return ["image", *(f"image{number}" for number in range(2, channels + 1))]


def signature(names: list[str]) -> ModelSignature:
    """What goes in, in the columns ``names``, and what comes out."""
    number = DataType.double
    takes: list[ColSpec | TensorSpec] = [ColSpec(DataType.string, name) for name in names]
    gives: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "mask"),
        ColSpec(Map(number), "volumes_ml"),
        ColSpec(DataType.string, "risk"),
        ColSpec(Array(DataType.string), "findings"),
        ColSpec(Map(Array(number)), "expected_dice"),
    ]
    return ModelSignature(Schema(takes), Schema(gives))


def encoded(file: Path) -> str:
    """The bytes of a file in base64."""
    return base64.b64encode(file.read_bytes()).decode()


class Served(PythonModel):
    """Predicts one scan at a time, however many ask: memory stays that of one."""

    def load_context(self, context: Any) -> None:
        """Loads the package in the model's folder, and checks its answer."""
        trusted = (context.model_config or {}).get("trusted", ())
        self._predictor = Predictor.load(context.artifacts["package"], trusted=trusted)
        self._turn = threading.Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each scan: ``mask`` (NIfTI, gzipped, in base64), ``volumes_ml``, ``risk``, ``findings``, and
        ``expected_dice`` by class (mean, low, high), empty where nothing can be promised.

        Args:
            context: of MLflow.
            model_input: a file for each channel in the columns ``image``, ``image2``, …, one row per scan: the bytes of
                a NIfTI file in base64, or a path within the folder that the server's SEG_SERVE_FOLDER names.
            params: none are known.

        Raises:
            MlflowException: a scan cannot be used; the server answers 400.
        """
        names = columns(len(self._predictor.package.channels))
        if missing := [name for name in names if name not in model_input]:
            raise MlflowException.invalid_parameter_value(f"There is no column {', '.join(missing)}.")
        rows = [[*row] for row in model_input[names].itertuples(index=False)]
        return pd.DataFrame([self._row(number, row) for number, row in enumerate(rows)])

    def _row(self, number: int, cells: list[Any]) -> dict[str, Any]:
        with self._turn, TemporaryDirectory() as place:
            try:
                files = [_file(cell, Path(place) / f"image{n}") for n, cell in enumerate(cells, 1)]
                found = self._predictor(*files)
                found.save(Path(place) / "mask.nii.gz")
                mask = encoded(Path(place) / "mask.nii.gz")
            except SegError as error:
                said = str(error).replace(f"{place}/", "").replace(f"{_folder() or place}/", "")
                raise MlflowException.invalid_parameter_value(f"Row {number}: {said}") from None
            except Exception:
                log.exception("row %d", number)
                said = f"Row {number} cannot be predicted; the server's log says why."
                raise MlflowException(said, error_code=INTERNAL_ERROR) from None
        about = described(found)
        return {"mask": mask} | {key: about[key] for key in ("volumes_ml", "risk", "findings", "expected_dice")}


def _folder() -> Path | None:
    return Path(os.environ[FOLDER]).resolve() if os.environ.get(FOLDER) else None


def _file(cell: Any, place: Path) -> Path:
    """The file that a cell means; DataError says what is wrong with it."""
    if not isinstance(cell, str) or not cell:
        raise DataError("a cell is no text; give the bytes of a NIfTI file in base64, or a path on the server.")
    if "." in cell:  # which base64 never has, and the name of a scan always
        return _allowed(cell)
    try:
        content = base64.b64decode(cell, validate=True)
    except binascii.Error:
        raise DataError("a cell is neither base64 nor a path of a NIfTI file.") from None
    file = place.with_name(place.name + (".nii.gz" if content[:2] == b"\x1f\x8b" else ".nii"))
    file.write_bytes(content)
    return file


def _allowed(name: str) -> Path:
    """The file ``name`` of the allowed folder, whatever links lead there."""
    folder = _folder()
    if folder is None:
        raise DataError(f"this server takes no paths: {FOLDER} was not set where it was started.")
    with suppress(OSError, ValueError):  # of names that no file can have
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise DataError("the path leads out of the server's folder.")
        if file.is_file():
            if all(part.resolve().is_relative_to(folder) for part in files_of([file])):
                return file
            raise DataError("its header names a file out of the server's folder.")
    raise DataError("there is no such file in the server's folder.")


set_model(Served())
