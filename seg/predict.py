"""``python -m seg.predict run=… input=scans/ output=masks/``: masks of new scans by a trained network."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, SegError

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Writes a mask into ``output`` for each scan, and ``report.json`` and ``report.csv`` about all.

    A scan that cannot be predicted does not stop the others. What an earlier command finished is left as it is, unless
    the scan or the network has changed.

    Raises:
        ConfigError: it is not clear what is to be predicted, or by which network.
        DataError: there is no scan, or a network cannot be used.
        SegError: some scans failed, with their names.
    """
    if not (cfg.input and cfg.output and (cfg.run or cfg.package or cfg.model or cfg.study)):
        raise ConfigError(
            "Give a network, scans and a folder for the masks: run=a1b2c3d4 (or package=model.zip, or "
            "model=hippocampus@champion, or study=… arm=…) input=scans/ output=masks/."
        )

    from seg.data.formats import MAPS
    from seg.data.scans import scans
    from seg.deploy.choice import networks
    from seg.deploy.worklist import predict_all
    from seg.engine.console import log_to

    log_to()
    members = networks(cfg)
    found = scans(Path(cfg.input), len(members[0].package.channels))
    if cfg.disagreement and len(members) == 1:
        raise ConfigError("disagreement=true needs several networks, such as run=[a1b2,c3d4]; here is one.")
    maps = [name for name in MAPS if cfg[name]]
    failed = predict_all(members, found, Path(cfg.output), overwrite=cfg.overwrite, maps=maps)
    log.info("%d of %d scans are predicted: %s", len(found) - len(failed), len(found), cfg.output)
    if failed:
        raise SegError(f"{len(failed)} of {len(found)} scans failed: {', '.join(failed)}. report.csv says why.")


run = verb("predict", main, lists=("run", "package", "model"))

if __name__ == "__main__":
    run()
