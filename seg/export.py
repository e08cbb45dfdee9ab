"""``python -m seg.export run=… format=onnx output=…``: a trained network as a file for other software."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, SegError
from seg.records.folder import find

if TYPE_CHECKING:
    from seg.data.cases import Case

log = logging.getLogger(__name__)
OWN = 2  # scans of the run itself that are compared


def main(cfg: DictConfig) -> None:
    """Writes the folder ``output`` with the network, how to use it, and an example, once they are found to be right.

    Raises:
        ConfigError: it is not clear what is to be exported; or the format needs a package that is not installed; or
            the network cannot be exported so.
        DataError: the network cannot be used, or the file answers otherwise than the network.
    """
    if not cfg.output:
        raise ConfigError("Give a network and a new folder: run=a1b2c3d4 format=onnx output=exported/.")

    from seg.deploy.choice import networks
    from seg.deploy.export import check_format, export
    from seg.engine.console import log_to

    log_to()
    check_format(cfg.format)
    (predictor,) = networks(cfg)
    if cfg.check:
        from seg.data.scans import scans

        cases = scans(Path(cfg.check), len(predictor.package.channels))
    else:
        cases = own_cases(Path(cfg.paths.outputs), cfg.run) if cfg.run else []
    place = Path(cfg.output)
    found = export(predictor, place, cfg.format, cases)
    log.info(
        "%s: a logit differs by at most %.2g, of logits up to %.3g; %s says how to use it",
        place / f"network.{cfg.format}",
        found["logit_difference"],
        found["largest_logit"],
        place / "contract.json",
    )


def own_cases(outputs: Path, name: str) -> "list[Case]":
    """Some cases of a run's own, first those that it was not trained on; none where its data are not here."""
    from seg.config.build import build
    from seg.data.splits import Split

    run = find(outputs, name)
    try:
        data, split = run.read_config().data, run.read(run.split, Split.from_json)
        there = Path(data.root).exists()  # the phantom would be made
        cases = build(data.cases, root=data.root, name=data.name, patient=data.patient).cases if there else ()
    except SegError as error:
        log.warning("The run's own scans are not compared: %s", error)
        return []
    if not cases:
        log.warning("The run's own scans are not compared, since there is no %s. check=scans/ takes others.", data.root)
    ids = [*split.test, *split.val, *split.train][:OWN]
    return [case for case in cases if case.id in ids]


run = verb("export", main)

if __name__ == "__main__":
    run()
