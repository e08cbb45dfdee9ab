"""A finished training's network in MLflow: what a plain user of MLflow finds there, and what a dead server costs."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from seg import sync
from seg.deploy import Predictor
from seg.deploy.choice import networks
from seg.deploy.logged import PACKAGE, log_after_training, log_model
from seg.deploy.package import read
from seg.errors import ConfigError
from seg.records.folder import RunFolder, find
from seg.records.mlflow import Mlflow

OUTSIDE = """
import json, sys
import mlflow, pandas as pd
assert not any(name == "seg" or name.startswith("seg.") for name in sys.modules)
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
import seg
found = model.predict(pd.DataFrame({"image": [sys.stdin.read()]}))
print(json.dumps({"seg": seg.__file__, "row": found.to_dict("records")[0]}))
"""


@pytest.fixture(scope="module")
def run(whole: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with its own copy of everything: its model is in MLflow already, for every training logs it."""
    outputs, result = whole
    assert Mlflow(None, outputs).client.search_logged_models(["1"])
    return find(outputs, result.run_id)


def models(run: RunFolder) -> list[Any]:
    client = Mlflow(None, run.outputs).client
    found = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    return [model for model in found if model.source_run_id == run.run_id]


def test_a_training_logs_its_network_once(run: RunFolder) -> None:
    (model,) = models(run)
    assert (model.name, model.status) == ("model", "READY")
    scores = {metric.key: metric.value for metric in model.metrics}
    client = Mlflow(None, run.outputs).client
    recorded = client.get_run(run.run_id)
    assert scores["test_dice"] == recorded.data.metrics["test_dice"]
    assert [output.model_id for output in recorded.outputs.model_outputs] == [model.model_id]
    assert len(client.get_metric_history(run.run_id, "test_dice")) == 1, "the run does not get its numbers twice"
    assert model.tags["dataset_version"] == recorded.data.tags["dataset_version"]
    assert log_model(run).model_id == model.model_id
    assert len(models(run)) == 1
    assert not run.is_pending


def test_it_holds_no_pickle_no_case_and_no_place_of_this_machine(run: RunFolder, phantom_root: Path) -> None:
    folder = Path(models(run)[0].artifact_location.removeprefix("file://"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".py", ".json", ".yaml", ".txt", ".safetensors", ""}
    written = "\n".join(path.read_text() for path in files if path.suffix in (".json", ".yaml", ".txt", ""))
    assert "phantom_0" not in written
    assert str(phantom_root) not in written
    assert str(Path(__file__).parents[2]) not in written
    assert "torch==" in (folder / "requirements.txt").read_text()


@pytest.mark.slow
def test_mlflow_loads_it_where_seg_is_not_installed(run: RunFolder, phantom_root: Path, tmp_path: Path) -> None:
    scan = phantom_root / "imagesTr" / "phantom_000.nii.gz"
    Predictor.load(run.run)(scan).save(tmp_path / "mask.nii.gz")
    site = next(path for path in sys.path if path.endswith("site-packages") and (Path(path) / "mlflow").is_dir())
    code = f"import sys; sys.path.insert(0, {site!r})\n{OUTSIDE}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, Mlflow(None, run.outputs).uri, f"runs:/{run.run_id}/model"],
        input=base64.b64encode(scan.read_bytes()).decode(),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "/code/seg/" in answer["seg"]
    assert base64.b64decode(answer["row"]["mask"]) == (tmp_path / "mask.nii.gz").read_bytes()


def test_what_is_no_scan_is_refused_in_words(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    from seg.deploy.served import FOLDER, Served

    allowed, outside = tmp_path / "allowed", tmp_path / "outside.nii"
    allowed.mkdir()
    outside.write_bytes(b"no header")
    (allowed / "link.nii").symlink_to(outside)
    (allowed / "text.nii").write_bytes(b"no header")
    package = Path(models(run)[0].artifact_location.removeprefix("file://")) / "artifacts" / "package"
    served = Served()
    served.load_context(OmegaConf.create({"artifacts": {"package": str(package)}, "model_config": None}))

    def said(cell: Any) -> str:
        with pytest.raises(MlflowException) as refused:
            served.predict(None, pd.DataFrame({"image": [cell]}))
        assert refused.value.get_http_status_code() == 400
        assert str(tmp_path) not in str(refused.value)
        assert "Traceback" not in refused.value.serialize_as_json()
        return str(refused.value)

    assert "takes no paths" in said("text.nii")
    monkeypatch.setenv(FOLDER, str(allowed))
    assert "text.nii" in said("text.nii")
    for place in ("../outside.nii", str(outside), "link.nii"):
        assert "leads out" in said(place)
    assert "no such file" in said("gone.nii")
    assert "neither base64" in said("not base64!")
    assert "readable NIfTI" in said(base64.b64encode(b"nothing").decode())
    assert "no text" in said(None)
    with pytest.raises(MlflowException, match="no column image"):
        served.predict(None, pd.DataFrame({"picture": ["x"]}))


def test_a_model_that_was_packed_before_its_run_was_scored_is_packed_anew(
    run: RunFolder, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path)
    store = Mlflow(None, tmp_path)
    recorded = store.client.create_run(store.experiment("organs")).info.run_id
    shutil.copytree(run.run, tmp_path / "runs" / run.run.name)
    (tmp_path / "runs" / run.run.name / "run_id").write_text(recorded)
    own = RunFolder.at(tmp_path / "runs" / run.run.name)
    scores = own.cases.read_text()
    own.cases.write_text(scores.partition("\n")[0] + "\n")  # as of a run that was not tested
    first = log_model(own, store.uri)
    assert log_model(own, store.uri).model_id == first.model_id
    own.cases.write_text(scores)
    second = log_model(own, store.uri)
    known = [read(Path(one.artifact_location.removeprefix("file://")) / PACKAGE).scores for one in (first, second)]
    assert (known[0], [*known[1]]) == ({}, ["lobe", "tail"])
    assert log_model(own, store.uri).model_id == second.model_id


@pytest.mark.slow
def test_what_did_not_arrive_is_one_warning_and_is_logged_by_sync(
    tiny: Any, empty_database: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path)
    result = tiny("trainer.max_epochs=1", "tracking=mlflow", "tracking.log_model=false")
    run = find(tmp_path, result.run_id)
    assert not models(run)
    assert not run.is_pending
    with monkeypatch.context() as away:
        away.setattr("seg.deploy.logged._written", lambda *_: 1 / 0)
        log_after_training(run)
    assert f"seg.sync run={run.short}" in caplog.text
    assert run.is_pending
    assert not models(run), "nothing half-made is left"
    cfg = OmegaConf.create({"run": run.short, "tracking": {"uri": None}, "paths": {"outputs": str(tmp_path)}})
    sync.main(cfg)
    assert [model.status for model in models(run)] == ["READY"]
    assert not run.is_pending


@pytest.mark.slow
def test_a_run_without_mlflow_has_no_model_there(tiny: Any, tmp_path: Path) -> None:
    result = tiny("trainer.max_epochs=1")
    with pytest.raises(ConfigError, match="not recorded in MLflow"):
        log_model(find(tmp_path, result.run_id))


def choose(outputs: Path, **given: Any) -> Any:
    keys = {"run": None, "package": None, "model": None, "study": None, "arm": None, "device": "cpu"}
    places = {"outputs": str(outputs), "cache": str(outputs / "cache")}
    return networks(OmegaConf.create(keys | {"paths": places, "tracking": {"uri": None}} | given))


def test_a_registered_version_is_a_network_by_its_alias_or_its_number(
    run: RunFolder, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Mlflow(None, run.outputs)
    with pytest.raises(ConfigError, match="no registered model organs"):
        choose(run.outputs, model="organs@champion")
    store.client.create_registered_model("organs")
    try:
        location = models(run)[0].artifact_location
        store.client.create_model_version("organs", location, run.run_id, model_id=models(run)[0].model_id)
        store.client.set_registered_model_alias("organs", "champion", "1")
        scan = phantom_root / "imagesTr" / "phantom_000.nii.gz"
        expected = Predictor.load(run.run)(scan).mask
        (one,) = choose(run.outputs, model="organs@champion")
        assert (one(scan).mask == expected).all()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
        monkeypatch.chdir(tmp_path)
        assert (Predictor.load("organs/1")(scan).mask == expected).all()
        with pytest.raises(ConfigError, match=r"no organs@best. There are organs/1, organs@champion \(1\)"):
            Predictor.load("organs@best")
    finally:
        store.client.delete_registered_model("organs")


def test_a_study_s_arm_is_an_ensemble(run: RunFolder) -> None:
    cfg = run.read_config()
    assert [one.package.origin["run_id"] for one in choose(run.outputs, study=cfg.study)] == [run.run_id]
    with pytest.raises(ConfigError, match="Choose an arm"):
        choose(run.outputs, study=cfg.study, arm="se")
    with pytest.raises(ConfigError, match="no finished run of the study other"):
        choose(run.outputs, study="other")
    with pytest.raises(ConfigError, match="would be ignored"):
        choose(run.outputs, run=run.short, arm="se")
    with pytest.raises(ConfigError, match="Give a network"):
        choose(run.outputs)
