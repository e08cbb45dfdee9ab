"""Which networks a command means: ``run=``, ``package=``, ``model=``, or ``study=`` with ``arm=``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from seg.deploy.predictor import Predictor
from seg.deploy.registry import fetched
from seg.errors import ConfigError, counted, few, nearest
from seg.records.folder import claimed, find
from seg.records.journal import Journal
from seg.records.state import has_finished

KEYS = ("run", "package", "model", "study")


def networks(cfg: DictConfig) -> list[Predictor]:
    """The networks that predict together.

    Raises:
        ConfigError: none or several of the keys are given, they name what does not exist, or the networks have
            different classes or channels.
        DataError: a network cannot be used.
    """
    given = [key for key in KEYS if cfg.get(key)]
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given)} are both given. Leave one out."
            if given
            else "Give a network: run=a1b2c3d4, package=model.zip, model=hippocampus@champion, or study=… arm=…."
        )
    if cfg.get("arm") and given != ["study"]:
        raise ConfigError(f"arm={cfg.arm} would be ignored: it chooses among the runs of a study. Give study=…, too.")
    named = cfg[given[0]]
    names = [str(named)] if isinstance(named, str) else [*map(str, named)]
    places = _places(cfg, given[0], names)
    members = [Predictor.load(place, device=cfg.device) for place in places]
    _refuse_unlike(places, members)
    return members


def _places(cfg: DictConfig, key: str, names: Sequence[str]) -> list[Path]:
    outputs, uri = Path(cfg.paths.outputs), cfg.tracking.uri if "tracking" in cfg else None
    match key:
        case "run":
            return [find(outputs, name).run for name in names]
        case "package":
            return [Path(name).expanduser() for name in names]
        case "model":
            return [fetched(name, outputs=outputs, uri=uri, cache=Path(cfg.paths.cache)) for name in names]
    return _of_arm(outputs, names[0], cfg.get("arm"))


def _of_arm(outputs: Path, study: str, arm: str | None) -> list[Path]:
    """The finished runs of a study's arm, by their own folders.

    Raises:
        ConfigError: there are none, or of several arms; it says which there are.
    """
    finished = [run for run in claimed(outputs) if has_finished(run)]
    arms: dict[str, dict[str, list[Path]]] = {}
    for run in finished:
        cfg = run.read_config()
        arms.setdefault(str(cfg.study), {}).setdefault(str(cfg.arm or ""), []).append(run.run)
    if study not in arms:
        known = nearest(study, arms) or f" There are {few(arms) or 'none at all'}."
        raise ConfigError(f"{outputs / 'runs'} has no finished run of the study {study}.{known}")
    own = arms[study]
    if arm not in own and (arm or len(own) > 1):
        listed = ", ".join(f"arm={name} ({counted(len(found), 'run')})" for name, found in sorted(own.items()))
        raise ConfigError(f"Choose an arm of the study {study}: {listed}.")
    places = own[arm] if arm else next(iter(own.values()))
    sweeps = {Journal(place).tags().get("sweep", "") for place in places}
    if len(sweeps) > 1:
        raise ConfigError(
            f"The runs of the study {study} are of several sweeps: {few(sweeps)}. Name those that are meant: "
            f"run=[{','.join(place.name.removeprefix('run_') for place in places[:2])},…]; seg.runs lists them."
        )
    return places


def _refuse_unlike(places: Sequence[Path], members: Sequence[Predictor]) -> None:
    for place, member in zip(places, members, strict=True):
        for what in ("classes", "channels", "regions"):
            own, first = ([*map(str, getattr(one.package, what) or ())] for one in (member, members[0]))
            if own != first:
                raise ConfigError(
                    f"{places[0]} and {place} cannot predict together: their {what} are "
                    f"{', '.join(first) or 'none'} and {', '.join(own) or 'none'}."
                )
