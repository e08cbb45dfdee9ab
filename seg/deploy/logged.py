"""A finished run's network as MLflow's own kind of model: on its Models page, and at ``runs:/<run id>/model``.

Such a model is a folder that MLflow loads where this project is not installed: the package, the code that reads it, and
what else to install. It holds no pickle.
"""

import json
import logging
import shutil
import threading
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.config.options import OPTIONS
from seg.data.nifti import write_volume
from seg.deploy.package import Package, made_up
from seg.deploy.predictor import Predictor
from seg.errors import ConfigError
from seg.files import sha256
from seg.records.folder import RunFolder
from seg.records.mlflow import Mlflow
from seg.records.pending import warn_of_rest
from seg.records.state import read_state

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

log = logging.getLogger(__name__)
NAME = "model"  # as in runs:/<run id>/model
PACKAGE = "artifacts/package"  # within the model's folder
_CODE = Path(__file__).parents[1]
_INSTALL = (  # what reading a package and predicting imports; mlflow adds itself
    *("torch", "monai", "numpy", "scipy", "pandas", "nibabel", "omegaconf", "safetensors", "einops", "psutil"),
)
_SHOWN = ("test_", "oof_", "best_val_")  # beginnings of the numbers that the Models page shows
_one_by_one = threading.Lock()  # MLflow hands a model from its code over through a variable of its own


def log_after_training(run: RunFolder) -> None:
    """Logs the model of a run that has just ended, unless it was pruned.

    Nothing that happens here may harm it: what does not arrive is left to ``seg.sync``, with a warning.
    """
    if json.loads(run.summary.read_text("utf-8"))["status"] != "finished":
        return
    run.model_pending.touch()
    if run.pending.exists():
        return  # MLflow is away, and it was said
    log.info("  its network goes to MLflow as a model …")
    try:
        log.info("  model %s", log_model(run).model_uri)
    except Exception as error:  # whatever it is, of MLflow, of torch, of the disk
        warn_of_rest(run, f"The network was not logged as a model: {str(error).rstrip('.')}.")


def log_model(run: RunFolder, uri: str | None = None) -> "LoggedModel":
    """The run's model in its MLflow, where it is made if there is none yet that knows the run's scores.

    Args:
        run: a finished run.
        uri: of MLflow; None: where the run was recorded.

    Raises:
        ConfigError: the run is not in MLflow, or MLflow does not answer.
        DataError: the run's folder lacks a file, or holds a damaged one.
    """
    state = read_state(run.run)
    if state is None or state.kind != "mlflow":
        raise ConfigError(f"Run {run.short} is not recorded in MLflow (tracking), so no model of it can be.")
    store = Mlflow(uri or state.uri, run.outputs)
    scores = sha256(*[path for path in (run.cases, run.confidence) if path.exists()])
    with store.explained():
        if (recorded := store.run(run.run_id)) is None:
            raise ConfigError(f"{store.name} has no run {run.run_id}. Say where it was recorded: tracking.uri=….")
        model = _logged(store, recorded, scores)
    if model is None:
        with TemporaryDirectory() as place:
            package = Predictor.load(run.run).store(Path(place) / "package")
            trusted = [*map(str, run.read_config().get("allow_targets") or ())]
            with store.explained():
                model = _made(store, recorded, Path(place), package, trusted, scores)
    run.model_pending.unlink(missing_ok=True)
    return model


def _logged(store: Mlflow, run: "Run", scores: str) -> "LoggedModel | None":
    """The run's model, if it is whole and has these scores; what a process that died left of one is removed."""
    where, own = [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' AND name = '{NAME}'"
    for model in store.client.search_logged_models(where, own):
        if model.status != "READY":
            store.client.delete_logged_model(model.model_id)
        elif model.tags.get("scores") == scores:
            return model
    return None


def _made(store: Mlflow, run: "Run", place: Path, package: Package, trusted: list[str], scores: str) -> "LoggedModel":
    """Logs the model of the package that is in ``place``, whole or not at all."""
    from mlflow.entities import LoggedModelOutput

    options, client, run_id = run.data.params, store.client, run.info.run_id
    model = client.create_logged_model(
        run.info.experiment_id,
        NAME,
        run_id,
        tags=package.origin | {"package": package.id, "scores": scores},
        params={key: options[key] for key in (*OPTIONS, "seed", "data.fold") if key in options},
        model_type="segmentation",
    )
    try:
        client.log_model_artifacts(model.model_id, str(_written(place, model, package, trusted)))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        _show_metrics(store, run, model.model_id)
        return client.finalize_logged_model(model.model_id, "READY")
    except BaseException:
        with suppress(Exception):  # MLflow is away: ``_logged`` removes it
            client.delete_logged_model(model.model_id)
        raise


def _written(place: Path, model: "LoggedModel", package: Package, trusted: list[str]) -> Path:
    """The model's folder in ``place``, which has the package."""
    import pandas as pd

    code = place / "code" / "seg"
    shutil.copytree(_CODE, code, ignore=_not_code)
    with _one_by_one, warnings.catch_warnings(action="ignore"):  # MLflow's on itself, pandas' on names of columns
        from mlflow.models import Model
        from mlflow.pyfunc import save_model

        from seg.deploy import served

        channels = served.columns(len(package.channels))
        identity: dict[str, Any] = {"model_uuid": model.model_id, "model_id": model.model_id}
        save_model(
            place / "model",
            mlflow_model=Model(artifact_path=model.artifact_location, run_id=model.source_run_id, **identity),
            python_model=code / "deploy" / "served.py",
            artifacts={"package": str(place / "package")},
            code_paths=[str(code)],
            model_config={"trusted": trusted},
            signature=served.signature(channels),
            input_example=pd.DataFrame([dict.fromkeys(channels, served.encoded(_example(place)))]),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _INSTALL],
            metadata={"package": package.id, "classes": package.classes, "channels": [*package.channels]},
        )
    return place / "model"


def _not_code(folder: str, names: list[str]) -> list[str]:
    """What is neither a module nor a folder of modules; options are none, and may hold this machine's settings."""
    return [name for name in names if name == "__pycache__" or not (Path(folder, name).is_dir() or name[-3:] == ".py")]


def _example(place: Path) -> Path:
    """A small made-up scan."""
    file = place / "example.nii.gz"
    write_volume(file, (made_up(1, (16, 16, 16))[0].numpy() * 20).astype(np.int16), np.eye(4))
    return file


def _show_metrics(store: Mlflow, run: "Run", model_id: str) -> None:
    """The run's last scores as the model's own: the same points, so that the run does not get them twice."""
    from mlflow.entities import Metric

    names = [name for name in run.data.metrics if name.startswith(_SHOWN)]
    last = [store.client.get_metric_history(run.info.run_id, name)[-1] for name in names]
    points = [Metric(m.key, m.value, m.timestamp, m.step, model_id, run_id=run.info.run_id) for m in last]
    store.client.log_batch(run.info.run_id, metrics=points)
