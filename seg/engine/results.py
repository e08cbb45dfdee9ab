"""What a run leaves behind: its folders, its record in MLflow, and its final state."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from statistics import fmean

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from seg.config.content import config_hash, flat, plain
from seg.engine.build import Built
from seg.engine.cases import describe
from seg.engine.console import also_log_to, clock, log_to, print_summary, printing
from seg.engine.progress import Progress
from seg.engine.resume import refuse_other_data
from seg.engine.rows import part_metrics
from seg.errors import InterruptedRunError, SegError, without_passwords
from seg.files import atomic_write, sha256
from seg.metrics import shown
from seg.models import parameter_count
from seg.models.cost import gflops
from seg.pages.curves import curves
from seg.pages.panels import contact_sheet, extremes
from seg.records.folder import place_given
from seg.records.journal import Journal
from seg.records.mlflow import NOTE
from seg.records.predictions import write_manifest
from seg.records.provenance import common_tags, git
from seg.records.readings import note_reading, part_of
from seg.records.record import Record

log = logging.getLogger(__name__)


def note_start(record: Record, cfg: DictConfig, built: Built, processes: int, options: Mapping[str, str]) -> None:
    """Notes everything that is known before training; ``options`` are the names of those chosen, by group."""
    also_log_to(record.folders.log)
    log.info("run %s (%s): %s", record.folders.run_id, record.name, record.folders.run)
    log.info("  recorded in %s", record.place)
    describe(built.material, extra={"file_only": True})
    if cfg.resume:
        refuse_other_data(record.folders, built.material)
    _note_inputs(record, cfg, built)
    record.set_tags(_tags(record, cfg, built) | {NOTE: _description(cfg, built)})
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
        "resolved.max_steps": built.budget.steps,
        "resolved.max_minutes": built.budget.minutes,
    }
    record.log_params(flat(plain(cfg)) | resolved | dict(options))


def _note_inputs(record: Record, cfg: DictConfig, built: Built) -> None:
    """Writes configuration, split, fingerprint, plan and environment into the run's folder and the record."""
    folders, material = record.folders, built.material
    packages = sorted(f"{d.name}=={d.version}" for d in distributions())
    files = {
        folders.config: OmegaConf.to_yaml(OmegaConf.create(plain(cfg))),
        folders.computing: json.dumps({"precision": built.precision.name, "layout": built.precision.layout}),
        folders.split: material.split.to_json(),
        folders.fingerprint: material.fingerprint.to_json(),
        folders.plan: material.plan.to_json(),
        folders.run / "environment/packages.txt": "\n".join(packages) + "\n",
        folders.run / "environment/git.diff": without_passwords(git("diff", "HEAD")),
    }
    for path, content in files.items():
        atomic_write(path, content)
        record.log_artifact(path, path.parent.name)
    record.log_dataset(material.cases.name, material.fingerprint.hash, source=str(cfg.data.root))


def _tags(record: Record, cfg: DictConfig, built: Built) -> dict[str, str]:
    material = built.material
    own = {
        "run_id": record.folders.run_id,
        "run_id_short": record.folders.short,
        "experiment_type": "training",
        "dataset_version": material.fingerprint.hash,
        "split_hash": material.split.hash,
        "config_hash": config_hash(cfg),
        "study": cfg.study,
        "arm": cfg.arm or record.name,
        "seed": cfg.seed,
        "fold": cfg.data.fold,
        "predictions": str(record.folders.predictions),
    }
    tags = {key: str(value) for key, value in (common_tags() | own | dict(cfg.tracking.tags)).items()}
    earlier = Journal(record.folders.run).tags()
    for key in ("code_hash", "git_commit"):  # of a run that is continued: all that it was trained with
        if key in earlier and not earlier[key].endswith(tags.get(key, "")):
            tags[key] = f"{earlier[key]}, then {tags[key]}"
    return tags


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


def _result(progress: Progress, metrics: Mapping[str, float], lengths: str) -> str:
    """What came out, in a line of Markdown."""
    part = "test" if "test_dice" in metrics else "oof"
    took = f"{progress.step} steps in {clock(progress.seconds)}"
    if progress.pruned:
        return f"pruned after epoch {progress.epoch}, {took}"
    said = [] if progress.best is None else [f"best validation Dice {progress.best:.4f} (epoch {progress.best_epoch})"]
    if f"{part}_dice" in metrics:
        known = ((metric, metrics.get(f"{part}_{name}")) for name, metric in shown().items())
        found = (f"{metric.with_unit(metric.label, lengths)} {v:.4g}" for metric, v in known if v is not None)
        scores = ", ".join(found)
        said = [f"**{'test' if part == 'test' else 'out of fold'}: {scores}**", *said]
    return "; ".join([*said, took])


@contextmanager
def recorded(record: Record) -> Iterator[None]:
    """Logs why a run ends, and gives its record its last state."""
    run = record.folders
    try:
        with record.closing(run.log):
            try:
                yield
            except InterruptedRunError:
                command = f"python -m seg.train resume={run.short}{place_given(run.outputs)}"
                log.warning("run %s is stopped and saved; continue with: %s", run.run_id, command)
                raise
            except Exception as error:  # on the screen the command says it once, when it ends
                log.error("%s", error, exc_info=not isinstance(error, SegError), extra={"file_only": True})
                raise
    finally:
        log_to()


def record_results(
    record: Record,
    cfg: DictConfig,
    built: Built,
    cases: pd.DataFrame,
    pictures: list[Path],
    *,
    checkpoint: Path,
    costs: dict[str, float],
) -> dict[str, float]:
    """Writes tables, curves and the manifest into the run's folder and the record; ``cases`` is its ``cases.csv``.

    Returns:
        The final metrics.
    """
    folders, progress = record.folders, built.training.progress
    atomic_write(folders.cases, cases.to_csv(index=False))
    atomic_write(folders.history, pd.DataFrame(progress.history).to_csv(index=False))
    plots = curves(progress.history, folders.run / "plots")
    metrics = final_metrics(cases, cfg, progress) | costs
    if record.reached("total_training_seconds") < progress.step:  # not a second time after a kill at this very end
        record.log_metrics(metrics, step=progress.step)
    record.set_tags({NOTE: _description(cfg, built, _result(progress, metrics, built.material.fingerprint.unit))})
    sent = {folders.cases: "data", folders.calibration: "data", checkpoint: "models"} | dict.fromkeys(plots, "plots")
    sent |= dict.fromkeys(_pictures_to_send(record, cfg, cases, pictures), "predictions")
    for path, place in sent.items():
        record.log_artifact(path, place)
    write_manifest(folders, config_hash=config_hash(cfg), checkpoint_hash=sha256(checkpoint))
    metrics |= kept_epoch(cfg, built)
    of_study = cfg.arm and cfg.tracking.parent  # which notes its reading itself
    if cfg.inference.part == "test" and not (progress.pruned or of_study):
        _note_reading(record, built)
    ended = {"run_id": record.run_id, "status": "pruned" if progress.pruned else "finished", "metrics": metrics}
    atomic_write(folders.summary, json.dumps(ended, indent=1))
    if progress.pruned:
        record.set_tags({"status": "pruned"})
    return metrics


def _note_reading(record: Record, built: Built) -> None:
    material, run = built.material, record.folders
    hashes = {case: material.fingerprint.by_id[case].sha256 for case in material.split.test}
    note_reading(run.outputs, part_of(hashes), kind="run", reader=run.run_id, name=record.name)


def print_results(record: Record, cases: pd.DataFrame, progress: Progress, part: str) -> None:
    """Prints the scores, and where all of it is."""
    training = f"{progress.seconds:.0f} s, {progress.step} steps"
    lines = {"training": training, "run": record.run_id, "predictions": record.folders.predictions}
    with printing():
        print_summary(cases, lines | record.look, of="Test" if part == "test" else "Out-of-fold")


def costs(built: Built, inference_seconds: Sequence[float]) -> dict[str, float]:
    """What the run cost, besides the seconds of training; what is not known is left out."""
    network, plan = built.training.network, built.material.plan
    known = {
        "gflops_a_patch": gflops(network, len(built.material.cases.channels), plan.patch),
        "peak_memory_mib": max((numbers["memory_mib"] for numbers in built.training.progress.history), default=None),
        "inference_seconds_a_case": fmean(inference_seconds) if inference_seconds else None,
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
    return metrics | part_metrics(cases, "test" if cfg.inference.part == "test" else "oof")


def _pictures_to_send(record: Record, cfg: DictConfig, cases: pd.DataFrame, pictures: list[Path]) -> list[Path]:
    if not pictures:
        return []
    ranked = extremes(cases.groupby("case")["dice"].mean().dropna().to_dict())
    first = {
        caption: next(path for path in pictures if path.name.startswith(f"{case}_Slice_"))
        for caption, case in ranked.items()
    }
    sheet = [contact_sheet(first, record.folders.predictions / "contact_sheet.png")] if first else []
    return [*sheet, *(pictures if cfg.predictions.upload == "all" else [])]
