"""``python -m seg.drift model=… since=2026-10-01``: whether the scans that come in are such as were learnt."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, DriftError, together

if TYPE_CHECKING:
    import pandas as pd

    from seg.deploy.drift import Drift
    from seg.deploy.predictor import Predictor
    from seg.records.record import Record

LIMITS = ("limit", "limit_share", "alpha")


def main(cfg: DictConfig) -> None:
    """Holds the scans in the reports beside the training cases, or beside those of another time, and records it.

    Raises:
        ConfigError: it is not clear which network or which days are meant.
        DataError: there is no report about the network, or one is damaged.
        DriftError: a property is beyond its limit, once everything is recorded.
    """
    if sum(map(bool, (cfg.run, cfg.package, cfg.model))) != 1:
        raise ConfigError(
            "Give the network that predicted the scans: model=hippocampus@champion, package=model.zip or run=a1b2c3d4."
        )

    shares = [f"{key} is {cfg[key]}; it must be between 0 and 1." for key in LIMITS if not 0 < cfg[key] < 1]
    together(ConfigError, shares)

    from seg.deploy.arrivals import Period, arrivals, learnt, reported
    from seg.deploy.choice import networks
    from seg.deploy.drift import Limits, drift
    from seg.engine.console import log_to
    from seg.study.typeset import markdown

    log_to()
    period = Period.between(cfg.since, cfg.until, "since and until")
    earlier = Period.parsed(cfg.against, "against") if cfg.against else Period(None, period.since)
    if cfg.against and period.overlaps(earlier):
        raise ConfigError(f"against={cfg.against} shares days with those looked at, {period}. Set since or until, too.")
    places = [cfg.reports] if isinstance(cfg.reports, str) else cfg.reports or [Path(cfg.paths.outputs) / "served"]
    folders = reported([Path(place).expanduser() for place in places])
    (network, *_) = networks(cfg)
    logged = arrivals(folders, network.package)
    references = [] if cfg.against else [("training cases", learnt(network.package))]
    if earlier.since or earlier.until:
        references.append((f"scans {earlier}", earlier.of(logged)))
    found = drift(period.of(logged), references, period, Limits(cfg.limit, cfg.limit_share, cfg.alpha))
    print(markdown(found.shown()), "", *found.sentences(), sep="\n")
    keep(cfg, network, found, logged)
    if found.beyond:
        raise DriftError(f"Beyond the limit: {', '.join(found.beyond)}.")


def keep(cfg: DictConfig, network: "Predictor", found: "Drift", logged: "pd.DataFrame") -> None:
    """Records table, figure and numbers as a run of the type ``monitoring``."""
    from seg.deploy.drift import by_week, figure
    from seg.engine.console import print_lines
    from seg.files import atomic_write
    from seg.study.drawing import write

    record = opened(cfg, network, found)
    place = record.folders.run
    atomic_write(place / "drift.csv", found.table.to_csv(index=False))
    with record.closing(place / "drift.csv"):
        for path in write({place / "drift.png": figure(found)}):
            record.log_artifact(path, "")
        weeks = by_week(logged)
        for week, numbers in weeks.items():
            record.log_metrics(numbers, step=week)
        effects = found.table.dropna(subset=["p"]).set_index("property")["effect"].add_prefix("effect/")
        record.log_metrics({"beyond": len(found.beyond), **effects.to_dict()}, step=max(weeks))
    print_lines(record.look | {"table": place / "drift.csv", "figure": place / "drift.png"})


def opened(cfg: DictConfig, network: "Predictor", found: "Drift") -> "Record":
    """The record of this call."""
    from seg.deploy.worklist import identity
    from seg.records.address import experiment_name
    from seg.records.mlflow import NOTE
    from seg.records.opening import open_record
    from seg.records.provenance import common_tags

    record = open_record(
        cfg.tracking.kind,
        outputs=Path(cfg.paths.outputs),
        uri=cfg.tracking.uri,
        experiment=experiment_name(cfg.tracking.experiment, f"monitoring/{network.package.origin['data']}"),
        run_name=f"drift-{found.period.replace(' ', '-')}",
        predictions=False,
    )
    tags = common_tags() | {"experiment_type": "monitoring", "package": identity(network), "run_id": record.run_id}
    tags |= {"drift": "beyond" if found.beyond else "within", NOTE: "\n\n".join(found.sentences())}
    record.set_tags(tags)
    return record


run = verb("drift", main, lists=("reports",))

if __name__ == "__main__":
    run()
