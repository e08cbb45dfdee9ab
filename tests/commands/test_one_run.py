"""What one finished run leaves: its folders, its tables, its record in MLflow, and what it prints."""

import json
import math
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from outside import Home, hashes, rows, same_training, short

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(finished: tuple[Home, str]) -> Path:
    (run,) = finished[0].runs()
    return run


@pytest.fixture(scope="module")
def predictions(finished: tuple[Home, str], run: Path) -> Path:
    return finished[0].outputs / "predictions" / run.name


@pytest.fixture(scope="module")
def recorded(finished: tuple[Home, str], run: Path):
    return finished[0].mlflow().get_run((run / "run_id").read_text().strip())


def test_the_run_has_a_folder_of_its_own(run: Path) -> None:
    expected = {
        *("run_id", "state.json", "summary.json", "log.txt", "history.csv"),
        *("checkpoints/best.pt", "checkpoints/last.pt", "config/config.yaml", "config/computing.json"),
        *("data/cases.csv", "data/fingerprint.json", "data/plan.json", "data/split.json"),
        *("environment/git.diff", "environment/packages.txt", "plots/learning_rate.png", "plots/loss_dice.png"),
    }
    assert expected <= set(hashes(run))
    assert run.name == f"run_{(run / 'run_id').read_text().strip()[:8]}"


def test_the_predictions_are_a_mask_and_a_picture_a_case_and_a_manifest(run: Path, predictions: Path) -> None:
    tested = json.loads((run / "data/split.json").read_text())["test"]
    files = set(hashes(predictions))
    assert {f"{case}.nii.gz" for case in tested} == {name for name in files if name.endswith(".nii.gz")}
    assert all(any(name.startswith(f"{case}_Slice_") for name in files) for case in tested)
    assert {"run_id", "manifest.json", "contact_sheet.png"} <= files
    assert (predictions / "run_id").read_text() == (run / "run_id").read_text()


def test_the_manifest_names_every_file_and_what_made_it(run: Path, predictions: Path) -> None:
    manifest = json.loads((predictions / "manifest.json").read_text())
    found = {name: value for name, value in hashes(predictions).items() if name not in ("run_id", "manifest.json")}
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == found
    assert manifest["run_id"] == (run / "run_id").read_text().strip()
    used = (sha256((run / "checkpoints" / name).read_bytes()).hexdigest() for name in ("best.pt", "last.pt"))
    assert manifest["checkpoint_hash"] in used


def test_a_mask_is_on_the_grid_of_its_image_and_its_scores_are_true(
    finished: tuple[Home, str], run: Path, predictions: Path
) -> None:
    root = finished[0].shared / "phantom"
    content = json.loads((root / "dataset.json").read_text())
    names = {int(value): name for value, name in content["labels"].items()}
    table = rows(run / "data/cases.csv")
    for mask in predictions.glob("*.nii.gz"):
        case = mask.name.removesuffix(".nii.gz")
        pred, label = nib.load(mask), nib.load(root / "labelsTr" / mask.name)
        assert pred.shape == label.shape
        np.testing.assert_allclose(pred.affine, label.affine, atol=1e-5)
        a, b = np.asarray(pred.dataobj), np.asarray(label.dataobj)
        assert set(np.unique(a)) <= set(names)
        for value, name in names.items():
            if value:
                (row,) = [row for row in table if (row["case"], row["class"]) == (case, name)]
                dice = 2 * np.sum((a == value) & (b == value)) / (np.sum(a == value) + np.sum(b == value))
                assert math.isclose(float(row["dice"]), dice, abs_tol=1e-9)


def test_the_table_of_cases_has_a_row_a_case_and_class(run: Path) -> None:
    table = rows(run / "data/cases.csv")
    assert list(table[0]) == [
        *("run_id", "case", "patient", "class", "dice", "iou", "precision", "recall", "nsd"),
        *("hd95_mm", "assd_mm", "volume_difference_ml", "missed", "false", "nsd_tolerance_mm"),
    ]
    tested = json.loads((run / "data/split.json").read_text())["test"]
    assert [(row["case"], row["class"]) for row in table] == [(c, k) for c in tested for k in ("lobe", "tail")]
    assert {row["run_id"] for row in table} == {short(run)}


def test_the_same_command_gives_the_same_run_and_leaves_the_other_alone(finished: tuple[Home, str], run: Path) -> None:
    home = finished[0]
    before = hashes(home.outputs / "runs" / run.name) | hashes(home.outputs / "predictions" / run.name)
    done = home.train("tracking=none")
    assert done.returncode == 0, done.stderr
    other = next(path for path in home.runs() if path != run)
    same_training(run, other)
    masks = [hashes(home.outputs / "predictions" / path.name) for path in (run, other)]
    for name in masks[0]:
        assert not name.endswith(".nii.gz") or masks[0][name] == masks[1][name]
    assert hashes(home.outputs / "runs" / run.name) | hashes(home.outputs / "predictions" / run.name) == before


def test_the_summary_says_what_was_reached(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["run_id"] == (run / "run_id").read_text().strip()
    table = rows(run / "data/cases.csv")
    mean = np.mean([np.mean([float(r["dice"]) for r in table if r["class"] == name]) for name in ("lobe", "tail")])
    assert math.isclose(summary["metrics"]["test_dice"], mean, abs_tol=1e-9)
    assert {"best_val_dice", "best_epoch", "val_dice", "train_loss", "params", "seconds"} <= set(summary["metrics"])


def test_mlflow_has_the_run_with_its_tags(recorded, run: Path, predictions: Path) -> None:
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "unet-warmup_cosine-f0-s0"
    tags = recorded.data.tags
    expected = {
        "run_id": recorded.info.run_id,
        "run_id_short": short(run),
        "experiment_type": "training",
        "study": "debug",
        "arm": "unet-warmup_cosine-f0-s0",
        "fold": "0",
        "seed": "0",
        "scanner": "3T",
        "predictions": f"outputs/predictions/{predictions.name}",
        "mlflow.source.type": "LOCAL",
    }
    assert expected.items() <= tags.items()
    assert {"git_commit", "git_dirty", "developer", "environment", "config_hash", "mlflow.note.content"} <= set(tags)
    assert tags["dataset_version"] == json.loads((run / "data/fingerprint.json").read_text())["hash"]
    assert tags["split_hash"] == json.loads((run / "data/split.json").read_text())["hash"]


def test_mlflow_has_the_options_and_the_resolved_configuration(recorded, run: Path) -> None:
    params = recorded.data.params
    chosen = {"model": "unet", "scheduler": "warmup_cosine", "optimizer": "muon", "loss": "dice_ce", "data": "phantom"}
    assert chosen.items() <= params.items()
    assert {"resolved.patch", "resolved.device", "resolved.precision", "resolved.layout", "parameters"} <= set(params)
    written = yaml.safe_load((run / "config/config.yaml").read_text())
    assert params["trainer.max_epochs"] == str(written["trainer"]["max_epochs"]) == "2"


def test_mlflow_has_the_numbers_over_the_steps(finished: tuple[Home, str], recorded, run: Path) -> None:
    client, run_id = finished[0].mlflow(), recorded.info.run_id
    summary = json.loads((run / "summary.json").read_text())["metrics"]
    for name in ("test_dice", "test_hd95_mm", "test_dice_lobe", "best_val_dice"):
        assert math.isclose(recorded.data.metrics[name], summary[name])
    history = rows(run / "history.csv")
    val_dice = [(point.step, point.value) for point in client.get_metric_history(run_id, "val_dice")]
    assert val_dice == [(int(row["step"]), float(row["val_dice"])) for row in history]
    loss = [point.step for point in client.get_metric_history(run_id, "train_loss")]
    assert loss[0] == 1
    assert loss == sorted(set(loss))
    assert {"system/epoch_seconds", "system/gflops_a_patch", "system/total_training_seconds"} <= set(
        recorded.data.metrics
    )


def test_mlflow_has_the_files(finished: tuple[Home, str], recorded, run: Path) -> None:
    client, run_id = finished[0].mlflow(), recorded.info.run_id
    (experiment,) = [e for e in client.search_experiments() if e.experiment_id == recorded.info.experiment_id]
    assert experiment.name == "phantom/debug"
    found = {
        file.path
        for folder in ("", "config", "data", "environment", "models", "plots", "predictions")
        for file in client.list_artifacts(run_id, folder)
        if not file.is_dir
    }
    assert {"log.txt", "config/config.yaml", "data/cases.csv", "data/split.json", "environment/packages.txt"} <= found
    assert {"models/best.pt", "plots/loss_dice.png", "predictions/contact_sheet.png"} <= found
    kept = Path(client.download_artifacts(run_id, "data/cases.csv"))
    assert kept.read_text() == (run / "data/cases.csv").read_text()


def test_the_end_of_a_run_says_what_was_reached_and_where_it_is(finished: tuple[Home, str], recorded) -> None:
    said = finished[1]
    for words in ("mean of classes", "Dice", "HD95", recorded.info.run_id, "outputs/predictions/run_"):
        assert words in said
    assert "mlflow ui --backend-store-uri sqlite:///" in said
    assert f"runs/{recorded.info.run_id}/model-metrics?workflowType=machine_learning" in said


def test_nothing_is_left_in_the_working_folder_but_the_outputs(finished: tuple[Home, str]) -> None:
    assert [path.name for path in finished[0].folder.iterdir()] == ["outputs"]


def test_without_mlflow_no_database_is_made(home: Home) -> None:
    assert home.train("tracking=none", "trainer.max_epochs=1").returncode == 0
    assert not list(home.folder.rglob("*.db"))
    assert (home.runs()[0] / "data/cases.csv").exists()
