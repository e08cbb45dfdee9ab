"""What a run leaves behind: its folders, its record in MLflow, and its last state, which is always true."""

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from seg.config.content import config_hash, flat, plain
from seg.engine.build import Built
from seg.engine.cases import Material, describe
from seg.engine.console import SHOWN, also_log_to, clock, log_to, print_summary
from seg.engine.loop import Progress
from seg.errors import ConfigError, InterruptedRunError, SegError
from seg.files import atomic_write, sha256
from seg.metrics import MEAN_OF_CLASSES, METRICS, summary
from seg.models import parameter_count
from seg.models.cost import gflops
from seg.pages.curves import curves
from seg.pages.panels import contact_sheet, extremes
from seg.records.folder import RunFolders, write_manifest
from seg.records.live import filed
from seg.records.mlflow import NOTE
from seg.records.provenance import common_tags, git
from seg.records.record import Tracker, experiment_name, open_tracker

log = logging.getLogger(__name__)
_CASE_COLUMNS = ("run_id", "case", "patient", "class", *METRICS, "missed", "false", "nsd_tolerance_mm")


@dataclass(frozen=True)
class Run:
    """An open record: where it is tracked and where its files lie."""

    tracker: Tracker
    folders: RunFolders


def open_run(cfg: DictConfig, dataset: str, name: str) -> Run:
    """Opens the record and the folders; a resumed run gets its own back."""
    t = cfg.tracking
    tracker = open_tracker(
        t.kind,
        outputs=Path(cfg.paths.outputs),
        uri=t.uri,
        experiment=experiment_name(t.experiment, f"{dataset}/{cfg.study}"),
        run_name=name,
        run_id=cfg.resume,
        parent_run_id=t.parent,
        system_metrics=t.system_metrics,
    )
    return Run(tracker, tracker.folders)


def note_start(run: Run, cfg: DictConfig, built: Built, processes: int, options: Mapping[str, str]) -> None:
    """Notes everything that is known before training; ``options`` are the names of those chosen, by group."""
    also_log_to(run.folders.run / "log.txt")
    log.info("run %s (%s): %s", run.folders.run_id, run.tracker.name, run.folders.run)
    log.info("  recorded in %s", run.tracker.place)
    describe(built.material, extra={"file_only": True})
    if cfg.resume:
        _refuse_other_data(run, built.material)
    _note_inputs(run, cfg, built)
    run.tracker.set_tags(_tags(run, cfg, built) | {NOTE: _description(cfg, built)})
    plan = built.material.plan
    resolved = {
        "parameters": parameter_count(built.training.network),
        "resolved.device": built.precision.device,
        "resolved.precision": built.precision.name,
        "resolved.layout": built.precision.layout,
        "resolved.processes": processes,
        "resolved.spacing_mm": list(plan.spacing_mm),
        "resolved.patch": list(plan.patch),
        "resolved.batch_size": plan.batch_size,
        "resolved.steps_per_epoch": built.budget.steps_per_epoch,
    }
    run.tracker.log_params(flat(plain(cfg)) | resolved | dict(options))


def _refuse_other_data(run: Run, material: Material) -> None:
    """A run goes on only with the data and the split it began with: else a training case could become a test case.

    Raises:
        ConfigError: they changed.
    """
    folder = run.folders.run / "data"
    split, prints = (json.loads((folder / f"{name}.json").read_text()) for name in ("split", "fingerprint"))
    if (split["hash"], prints["hash"]) != (material.split.hash, material.fingerprint.hash):
        raise ConfigError(
            f"resume: the data of run {run.folders.run_id} changed since it began ({len(prints['cases'])} cases then, "
            f"{len(material.fingerprint.cases)} now). Put them back, or start a new run."
        )


def _note_inputs(run: Run, cfg: DictConfig, built: Built) -> None:
    """Writes configuration, split, fingerprint, plan and environment into the run's folder and the record."""
    folder, material = run.folders.run, built.material
    packages = sorted(f"{d.name}=={d.version}" for d in distributions())
    files = {
        "config/config.yaml": OmegaConf.to_yaml(OmegaConf.create(plain(cfg))),
        "config/computing.json": json.dumps({"precision": built.precision.name, "layout": built.precision.layout}),
        "data/split.json": material.split.to_json(),
        "data/fingerprint.json": material.fingerprint.to_json(),
        "data/plan.json": json.dumps(asdict(material.plan), indent=1),
        "environment/packages.txt": "\n".join(packages) + "\n",
        "environment/git.diff": git("diff", "HEAD"),
    }
    for name, content in files.items():
        atomic_write(folder / name, content)
        run.tracker.log_artifact(folder / name, name.split("/")[0])
    run.tracker.log_dataset(material.cases.name, material.fingerprint.hash, source=str(cfg.data.root))


def _tags(run: Run, cfg: DictConfig, built: Built) -> dict[str, str]:
    material = built.material
    own = {
        "run_id": run.folders.run_id,
        "run_id_short": run.folders.short,
        "experiment_type": "training",
        "dataset_version": material.fingerprint.hash,
        "split_hash": material.split.hash,
        "config_hash": config_hash(cfg),
        "study": cfg.study,
        "arm": cfg.arm or run.tracker.name,
        "seed": cfg.seed,
        "fold": cfg.data.fold,
        "predictions": str(run.folders.predictions),
    }
    return {key: str(value) for key, value in (common_tags() | own | dict(cfg.tracking.tags)).items()}


def _description(cfg: DictConfig, built: Built, result: str = "") -> str:
    """What is trained, on what, and with what result, in Markdown: MLflow shows it on the run's page."""
    material = built.material
    parts = [str(cfg[part].get("_target_", "")) for part in ("model", "attention", "loss", "optimizer", "scheduler")]
    model, *others = [target.rpartition(".")[2] for target in parts if target]
    counts = {"train": material.split.train, "validate": material.split.val, "test": material.split.test}
    cases = ", ".join(f"{len(ids)} to {purpose}" for purpose, ids in counts.items())
    what = f"**{model}** with {', '.join(others)}; {parameter_count(built.training.network) / 1e6:.2f} M parameters"
    place = f"study {cfg.study}, " + (f"arm {cfg.arm}, " if cfg.arm else "") + f"fold {cfg.data.fold}, seed {cfg.seed}"
    return "\n".join(
        f"- {line}" for line in (what, f"on **{material.cases.name}**: cases {cases}; {place}", result) if line
    )


def _result(progress: Progress, metrics: Mapping[str, float]) -> str:
    """What came out, in a line of Markdown."""
    part = "test" if "test_dice" in metrics else "oof"
    took = f"{progress.step} steps in {clock(progress.seconds)}"
    if progress.pruned:
        return f"pruned after epoch {progress.epoch}, {took}"
    said = [] if progress.best is None else [f"best validation Dice {progress.best:.4f} (epoch {progress.best_epoch})"]
    if f"{part}_dice" in metrics:
        scores = ", ".join(f"{label} {metrics[f'{part}_{name}']:.4g}" for name, label in SHOWN.items())
        said = [f"**{'test' if part == 'test' else 'out of fold'}: {scores}**", *said]
    return "; ".join([*said, took])


@contextmanager
def recorded(run: Run | None) -> Iterator[None]:
    """Gives the record its last state: FINISHED, KILLED where the user or the cluster stopped it, else FAILED."""
    state, reason = "FAILED", ""
    try:
        yield
        state = "FINISHED"
    except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:
        state = "KILLED"
        if run and isinstance(error, InterruptedRunError):
            outputs = run.folders.run.parent.parent
            where = "" if outputs == Path("outputs") else f" paths.outputs={shlex.quote(str(outputs))}"
            command = f"python -m seg.train resume={run.folders.short}{where}"
            log.warning("run %s is stopped and saved; go on with: %s", run.folders.run_id, command)
        raise
    except BaseException as error:
        # On the screen the command says it once, when it ends.
        reason = str(error)
        log.error("%s", error, exc_info=not isinstance(error, SegError), extra={"file_only": True})
        raise
    finally:
        if run:
            with suppress(OSError):  # a full disk must not keep the state from being told
                run.tracker.log_artifact(run.folders.run / "log.txt", "")
            run.tracker.finish(state, reason)
            log_to()


def chosen_checkpoint(run: Run, wanted: str) -> Path:
    """``best`` where it was asked for and a validation made one, else ``last``."""
    best = run.folders.run / "checkpoints" / "best.pt"
    return best if wanted == "best" and best.exists() else best.with_name("last.pt")


def record_results(
    run: Run,
    cfg: DictConfig,
    built: Built,
    rows: list[dict[str, Any]],
    pictures: list[Path],
    *,
    checkpoint: Path,
    costs: dict[str, float],
) -> dict[str, float]:
    """Writes tables, curves and the manifest, sends them, and prints the summary.

    Returns:
        The final metrics.
    """
    folder, progress = run.folders.run, built.training.progress
    cases = pd.DataFrame(rows, columns=None if rows else [*_CASE_COLUMNS])
    atomic_write(folder / "data/cases.csv", cases.to_csv(index=False))
    atomic_write(folder / "history.csv", pd.DataFrame(progress.history).to_csv(index=False))
    plots = curves(progress.history, folder / "plots")
    metrics = final_metrics(cases, cfg, progress) | costs
    run.tracker.log_metrics(filed(metrics), step=progress.step)
    run.tracker.set_tags({NOTE: _description(cfg, built, _result(progress, metrics))})
    for path, place in [
        (folder / "data/cases.csv", "data"),
        (checkpoint, "models"),
        *((path, "plots") for path in plots),
    ]:
        run.tracker.log_artifact(path, place)
    for path in _pictures_to_send(run, cfg, cases, pictures):
        run.tracker.log_artifact(path, "predictions")
    write_manifest(run.folders, config_hash=config_hash(cfg), checkpoint_hash=sha256(checkpoint))
    metrics |= kept_epoch(cfg, built)
    ended = {"run_id": run.folders.run_id, "status": "pruned" if progress.pruned else "finished", "metrics": metrics}
    atomic_write(folder / "summary.json", json.dumps(ended, indent=1))
    if progress.pruned:
        run.tracker.set_tags({"status": "pruned"})
    return metrics


def print_results(run: Run, cases: pd.DataFrame, progress: Progress) -> None:
    """Prints the scores, and where all of it is."""
    lines = {
        "training": f"{progress.seconds:.0f} s, {progress.step} steps",
        "run": run.folders.run_id,
        "predictions": run.folders.predictions,
    }
    print_summary(cases, lines | run.tracker.look)


def costs(built: Built, inference_seconds: Sequence[float], energy_kwh: float | None) -> dict[str, float]:
    """What the run took, beside its training's seconds: what is not known is left out."""
    network, plan = built.training.network, built.material.plan
    known = {
        "gflops_a_patch": gflops(network, len(built.material.cases.channels), plan.patch),
        "peak_memory_mib": max((numbers["memory_mib"] for numbers in built.training.progress.history), default=None),
        "inference_seconds_a_case": fmean(inference_seconds) if inference_seconds else None,
        "energy_kwh": energy_kwh,
    }
    return {name: value for name, value in known.items() if value is not None}


def kept_epoch(cfg: DictConfig, built: Built) -> dict[str, float]:
    """What a search may ask for: the numbers of the epoch whose weights were kept, parameters and seconds."""
    progress, best = built.training.progress, cfg.inference.checkpoint == "best"
    epoch = progress.best_epoch if best and progress.best_epoch else progress.epoch
    numbers = next((numbers for numbers in progress.history if numbers["epoch"] == epoch), {})
    cost = {"params": parameter_count(built.training.network), "seconds": progress.seconds}
    return {key: value for key, value in numbers.items() if key not in ("epoch", "step", "lr")} | cost


def final_metrics(cases: pd.DataFrame, cfg: DictConfig, progress: Progress) -> dict[str, float]:
    """test_<metric>, its mean over classes and cases, test_dice_<class>, and what the training reached.

    Scores of the validation part (``inference.part=val``) are called oof_…, out of fold: val_dice is the loop's own.
    """
    metrics: dict[str, float] = {"total_training_seconds": progress.seconds}
    if progress.best is not None and progress.best_epoch is not None:
        metrics |= {"best_val_dice": progress.best, "best_epoch": progress.best_epoch}
    if cases.empty:
        return metrics
    table = summary(cases)
    mean = table.loc[MEAN_OF_CLASSES]
    part = "test" if cfg.inference.part == "test" else "oof"
    metrics |= {f"{part}_{metric}": float(mean[f"{metric}_mean"]) for metric in METRICS}
    metrics |= {f"{part}_{count}": int(mean[count]) for count in ("missed", "false")}
    return metrics | {f"{part}_dice_{name}": float(row["dice_mean"]) for name, row in table.iloc[:-1].iterrows()}


def _pictures_to_send(run: Run, cfg: DictConfig, cases: pd.DataFrame, pictures: list[Path]) -> list[Path]:
    if not pictures:
        return []
    ranked = extremes(cases.groupby("case")["dice"].mean().to_dict())
    first = {
        caption: next(path for path in pictures if path.name.startswith(f"{case}_Slice_"))
        for caption, case in ranked.items()
    }
    sheet = contact_sheet(first, run.folders.predictions / "contact_sheet.png")
    return [sheet, *pictures] if cfg.predictions.upload == "all" else [sheet]
