"""``python -m seg.plan experiments=… pilot=…``: what a study can find and how long it trains, before it is run."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg.config.command import exits, read
from seg.config.content import number
from seg.config.options import CONF
from seg.errors import ConfigError

if TYPE_CHECKING:
    from seg.sweep.forecast import Forecast

SEEDS = range(1, 11)


def main(cfg: DictConfig, arguments: Sequence[str]) -> None:
    """Prints what the study finds with 1 to 10 seeds an arm and several numbers of patients, and how long it trains.

    Args:
        cfg: the keys of ``conf/plan.yaml``.
        arguments: of the command line, as for ``seg.train -m``.

    Raises:
        ConfigError: no study is named, or its plan cannot be made.
        DataError: as in a training.
    """
    import logging

    from seg.config.compose import sweeping
    from seg.engine.cases import read_material
    from seg.engine.console import log_to
    from seg.sweep.definition import read_sweep
    from seg.sweep.forecast import findings, forecast, headline
    from seg.sweep.jobs import lines_of
    from seg.sweep.scored import scored_patients

    log_to(level=logging.WARNING)
    pilot = OmegaConf.to_container(cfg.pilot) if OmegaConf.is_list(cfg.pilot) else cfg.pilot
    chosen = [] if pilot is None else lines_of({"hydra.sweeper.study.pilot": [pilot]})
    with sweeping("train", [*arguments, *chosen]) as described:
        asked = read_sweep(*described)
        if asked.study is None:
            raise ConfigError("There is no study to plan. Name one: experiments=attention, a file in experiments/.")
        counts, material = _counts(cfg.patients), None
        if not counts:
            material = read_material(asked.cfg)
            here = scored_patients(asked.study, asked.cfg, material)
            counts = [here, here // 2, 2 * here]
        found = forecast(asked, asked.study, material, counts[0])
    print(f"{headline(found)}\n")
    if found.basis:
        _show(found, counts)
        print()
    for line in findings(found):
        print(line)


def _counts(patients: Any) -> list[int]:
    """The numbers of patients that are asked for."""
    given = patients if OmegaConf.is_list(patients) else [] if patients is None else [patients]
    counts = [count for one in given if isinstance(count := number(one), int) and count > 1]
    if len(counts) < len(given):
        raise ConfigError(f"patients is {patients}; it must be a whole number above 1, or a list of such: [60, 120].")
    return counts


def _show(found: "Forecast", counts: Sequence[int]) -> None:
    """A line for each number of seeds; an arrow marks the study's own."""
    from rich.table import Table

    from seg.engine.console import print_table
    from seg.metrics import METRICS

    basis, design = found.basis, found.design
    assert basis is not None
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, title_justify="left")
    grid.title = f"Smallest difference in {METRICS[design.metric].label} that is found in 80 % of such studies"
    first, *more = (f"{n} patients" for n in counts)
    for head in ("", "seeds", "trainings", "time", first, "to be safe", *more):
        grid.add_column(head, justify="right")
    for seeds in sorted({*SEEDS, design.seeds}):
        here = replace(design, seeds=seeds)
        rest = [replace(here, patients=count).spelled(basis.expected) for count in counts[1:]]
        own = [here.spelled(basis.expected), here.spelled(basis.cautious)]
        mark = "→" if seeds == design.seeds else ""
        grid.add_row(mark, str(seeds), str(found.trainings(seeds)), found.time(seeds) or "–", *own, *rest)
    print_table(grid)


def run() -> None:
    """The command: its own keys, and those of ``seg.train``."""
    with exits():
        text, typed = (CONF / "plan.yaml").read_text("utf-8"), sys.argv[1:]
        if {"-h", "--help"} & {*typed}:
            print(text, end="")
            return
        own = [argument for argument in typed if argument.partition("=")[0] in OmegaConf.create(text)]
        main(read(text, own), [argument for argument in typed if argument not in (*own, "-m", "--multirun")])


if __name__ == "__main__":
    run()
