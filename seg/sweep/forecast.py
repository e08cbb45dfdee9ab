"""What a study will be able to find and how long it will train, told before its first run (seg.study.planning)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg.config.content import WITHOUT_EFFECT
from seg.engine.cases import Material
from seg.engine.progress import budget_of
from seg.errors import ConfigError, DataError, InputError, counted, few
from seg.metrics import METRICS, read_scores
from seg.records.scored import choices
from seg.records.table import runs, scores_of
from seg.study.options import compared_pairs
from seg.study.planning import ONE_SEED, Basis, Design, of_pilot, typical, verdict
from seg.study.question import FILE, Asked, find_sweep
from seg.study.scores import patient_values
from seg.sweep.definition import Sweep
from seg.sweep.design import Study
from seg.sweep.parent import plan_command
from seg.sweep.rules import WHERE
from seg.sweep.scored import scored_patients

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pilot:
    """Runs that were made before."""

    scores: "pd.DataFrame"  # by run, case and class, with arm, seed and fold
    seconds: float | None  # of one run; None: not known
    steps: float | None  # of the optimizer, in one run
    name: str


@dataclass(frozen=True)
class Forecast:
    """A study's design, what is known of its variances, and its time."""

    study: Study
    design: Design
    basis: Basis | None  # None: no pilot, and no typical values of the metric
    seconds: float | None  # of one run; None: not known
    clock: str  # where that is from, or how to know it
    folds: int  # runs that an arm and seed takes
    n_jobs: int

    def trainings(self, seeds: int) -> int:
        """How many runs the study has with so many seeds an arm."""
        return self.design.arms * seeds * self.folds

    def time(self, seeds: int) -> str:
        """How long they take, in words; "" where it is not known."""
        return "" if self.seconds is None else duration(self.seconds * self.trainings(seeds) / self.n_jobs)


def forecast(asked: Sweep, study: Study, material: Material | None, patients: int) -> Forecast:
    """What is known of a study before its first run.

    Args:
        asked: the sweep.
        study: of the sweep.
        material: its data; None: they are not read.
        patients: that will be scored.

    Raises:
        ConfigError: the pilot is not known, or tells too little.
        DataError: its scores do not fit together.
    """
    outputs, uri = asked.outputs, asked.cfg.tracking.uri
    try:
        pilot = None if study.pilot is None else read_pilot(study.pilot, outputs, uri)
        basis = _basis(pilot, study.primary, study.classes) if pilot else typical(study.primary)
    except InputError as error:
        raise type(error)(f"pilot: {error}") from error
    arms = [arm.name for arm in study.arms]
    design = Design(
        arms=len(arms),
        seeds=len(study.seeds),
        patients=patients,
        family=len(compared_pairs(arms, study.against)),
        to_baseline=len(arms) - 1,
        metric=study.primary,
        margin=study.margin,
        lengths=material.fingerprint.unit if material else "mm",
    )
    seconds, clock = _seconds(asked.cfg, material, pilot)
    return Forecast(study, design, basis, seconds, clock, len(study.folds or (0,)), asked.n_jobs)


def read_pilot(named: str | Sequence[str], outputs: Path, uri: str | None) -> Pilot:
    """The runs of a pilot: of a study, by its name, its sweep's or its folder, or those of a list.

    Raises:
        ConfigError: no such study or run is known, or a run's beginning is that of several.
        DataError: none of them has scores.
    """
    if isinstance(named, str) and (Path(named) / "scores.csv").is_file():
        return _kept(Path(named))
    if isinstance(named, str):
        sweep = Asked.read(find_sweep(outputs, Path(named).name if Path(named).is_dir() else named)).sweep
        table, name = runs(outputs, uri, sweep=sweep), f"pilot {named}"
    else:
        table, name = runs(outputs, uri), f"pilot of {counted(len(named), 'run')}"
        meant = {str(run): [known for known in table["run_id"] if known.startswith(str(run))] for run in named}
        if unknown := [run for run, known in meant.items() if not known]:
            raise ConfigError(f"pilot names {', '.join(unknown)}, and no such run is in {outputs}. See seg.runs.")
        for run, known in meant.items():
            if len(known) > 1:
                raise ConfigError(f"pilot names {run}, which may be any of {few(known)}. Give more characters.")
        table = table[table["run_id"].isin([run_id for known in meant.values() for run_id in known])]
    table = table[table["status"] == "FINISHED"]
    scores = scores_of(table, outputs, uri) if len(table) else table
    if scores.empty:
        raise DataError(f"The {name} has no scores yet: none of its runs has finished and scored its cases.")
    table = table[table["run_id"].isin(scores["run_id"])]
    whose = table.reindex(columns=["run_id", "seed", "fold"]).assign(arm=_arms(table)).convert_dtypes()
    steps = table.get("params.trainer.max_steps")
    return Pilot(scores.merge(whose, on="run_id"), _known(table["seconds"]), _known(steps), name)


def _arms(table: "pd.DataFrame") -> "pd.Series":
    """The arm of each run; plain runs, whose tag is but their name, are of one where all but seed and fold is equal."""
    of_settings = [
        column
        for column in table
        if column.startswith("params.")
        and not column.removeprefix("params.").startswith((*WITHOUT_EFFECT, "resolved."))
        if column not in ("params.seed", "params.data.fold", "params.data.split_seed")
    ]
    named = table["name"].map(choices)
    alike = [named, *(table[column].astype(str) for column in of_settings)]
    own = named + " as " + table["run_id"].groupby(alike).transform("min").str[:8]
    return table["arm"].where(table["arm"] != table["name"], own).fillna(own) if "arm" in table else own


def _kept(folder: Path) -> Pilot:
    """A study whose report is in ``folder``."""
    import pandas as pd

    table = pd.read_csv(folder / "table.csv") if (folder / "table.csv").is_file() else {}
    steps = Asked.read(folder).base.get("trainer.max_steps") if (folder / FILE).is_file() else None
    seconds = _known(table.get("training_seconds"))
    return Pilot(read_scores(folder / "scores.csv"), seconds, _known([steps]), f"pilot {folder.name}")


def _known(numbers: Any) -> float | None:
    """The mean of those that are numbers; None where none is."""
    import pandas as pd

    mean = pd.to_numeric(pd.Series(numbers, dtype=object), errors="coerce").mean()
    return None if pd.isna(mean) else float(mean)


def _basis(pilot: Pilot, metric: str, classes: Sequence[str] | None) -> Basis:
    values = patient_values(pilot.scores, arms=None, metrics=[metric], classes=classes, incomplete="common")
    return of_pilot(values.by_metric[metric], metric, pilot.name)


def _seconds(cfg: DictConfig, material: Material | None, pilot: Pilot | None) -> tuple[float | None, str]:
    """Of one run, and where that is from."""
    cases, batch = (len(material.split.train), material.plan.batch_size) if material else (1, 1)
    budget, _ = budget_of(cfg, cases, batch)
    if budget.minutes is not None and budget.steps is None:
        return 60 * budget.minutes, f"{budget.minutes:g} min of training a run, as its budget says"
    if pilot and pilot.seconds:
        steps = cfg.trainer.max_steps
        times = steps / pilot.steps if steps and pilot.steps else 1.0
        return pilot.seconds * times, f"{duration(pilot.seconds * times)} a run, by the pilot"
    if budget.minutes is not None:
        return 60 * budget.minutes, f"{budget.minutes:g} min of training a run at most, as its budget says"
    return None, "how long is not known: a run tells it after its first seconds, or name a pilot"


def duration(seconds: float) -> str:
    """A time in words: 40 s, 7 min, 2.5 h, 3.1 days."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{seconds / size:.{0 if size < 3600 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def announce(asked: Sweep, material: Material) -> float | None:
    """Logs what a study will be able to find, with a warning where that is not its own margin; never refuses.

    Returns:
        The smallest difference that it finds; None where it is not known or infinite, and for another sweep.
    """
    if (study := asked.study) is None:
        return None
    found = forecast(asked, study, material, scored_patients(study, asked.cfg, material))
    log.info("%s", headline(found))
    enough = found.basis is not None and found.design.holds(found.basis.expected)
    first, *rest = findings(found)
    log.log(logging.INFO if enough else logging.WARNING, "  %s%s", "" if enough else "warning: ", first)
    log.info("  %s", " ".join([*rest, f"More: {plan_command()}"]))
    planned = found.design.finds(found.basis.expected) if found.basis else inf
    return planned if isfinite(planned) else None


def headline(found: Forecast) -> str:
    """What will be run, how long it takes, and what it is scored on."""
    design, study = found.design, found.study
    seeds = f"{study.until.start} to {design.seeds} seeds" if study.until else counted(design.seeds, "seed")
    parts = [counted(design.arms, "arm"), seeds, *([counted(found.folds, "fold")] if study.folds else [])]
    at_once = f", {found.n_jobs} at a time" if found.n_jobs > 1 else ""
    most, about = ("at most ", "at most") if study.until else ("", "about")
    time = found.time(design.seeds)
    known = f"{about} {time} ({found.clock}{at_once})" if time else found.clock
    trainings = f"{most}{counted(found.trainings(design.seeds), 'training')}"
    return (
        f"study {study.name}: {trainings} ({' × '.join(parts)}), {known}; "
        f"scored on {counted(design.patients, 'patient')}, {counted(design.family, 'comparison')}"
    )


def findings(found: Forecast) -> Iterator[str]:
    """What the study can find and what would do if that is too little, then what this rests on."""
    if found.basis:
        yield verdict(found.design, found.basis)
        yield f"Variances: {found.basis.told(found.design)}."
    elif found.design.seeds < 2:
        yield ONE_SEED
    else:
        yield (
            f"What it can find in {METRICS[found.design.metric].label} is not known without a pilot: set {WHERE}.pilot."
        )
