"""Which networks a command means: ``run=``, ``package=``."""

from pathlib import Path

from omegaconf import DictConfig

from seg.deploy.predictor import Predictor
from seg.errors import ConfigError
from seg.records.folder import find


def networks(cfg: DictConfig) -> list[Predictor]:
    """The networks that predict together.

    Raises:
        ConfigError: they have different classes or channels.
    """
    named = cfg.run or cfg.package
    names = [named] if isinstance(named, str) else list(named)
    places = [find(Path(cfg.paths.outputs), name).run if cfg.run else Path(name).expanduser() for name in names]
    members = [Predictor.load(place, device=cfg.device) for place in places]
    for name, member in zip(names, members, strict=True):
        for what in ("classes", "channels"):
            own, first = (list(getattr(one.package, what)) for one in (member, members[0]))
            if own != first:
                raise ConfigError(
                    f"{names[0]} and {name} cannot predict together: their {what} are {', '.join(first)} and "
                    f"{', '.join(own)}."
                )
    return members
