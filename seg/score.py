"""``python -m seg.score run=… data.root=…``: scores of a run on labelled cases; or of any masks: ``pred=… ref=…``."""

import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from seg.config.command import verb
from seg.config.content import number
from seg.errors import ConfigError, together
from seg.files import atomic_write, file_name
from seg.records.folder import find


def main(cfg: DictConfig) -> None:
    """Scores the masks of other tools, or those of a run on cases that it predicts first; writes ``cases.csv``.

    Raises:
        ConfigError: it is not clear what is to be scored, or the run has been tested already.
        DataError: masks and labels, or data and network, do not fit together; or a file is damaged.
    """
    if cfg.pred and cfg.ref and not (cfg.run or cfg.data.root):
        _refuse(cfg, {"device": "auto", "masks": True}, "masks of a tool (pred)")
        score_tools(cfg)
    elif cfg.run and not (cfg.pred or cfg.ref):
        _refuse(cfg, {"classes": None, "nsd_tolerance_mm": None}, "a run, which has its own")
        if cfg.data.root is None:
            _refuse(cfg, {"data.name": None, "data.patient": None}, "a run's own test part")
        score_run(cfg)
    else:
        raise ConfigError(
            "Give a run, to test it on its own test part: run=a1b2c3d4; or a run and the folder of other cases: "
            "run=a1b2c3d4 data.root=/data/other_hospital; or masks of any tool, or of several, and their labels: "
            "pred=masks/ ref=labels/, pred=[nnunet/,ours/] ref=labels/."
        )


def _refuse(cfg: DictConfig, usual: Mapping[str, object], of: str) -> None:
    """ConfigError where keys that would do nothing have other than their ``usual`` values."""
    given = [key for key, value in usual.items() if OmegaConf.select(cfg, key) != value]
    together(ConfigError, [f"{key} has no effect on {of}. Leave it out." for key in given])


def score_run(cfg: DictConfig) -> None:
    """Predicts and scores every labelled case, and writes ``<outputs>/scores/run_<id>/<data>/cases.csv``.

    Without ``data.root`` it is the run's own test part, which a trial of a search has not seen: its scores go into the
    run's record, too.
    """
    run = find(Path(cfg.paths.outputs), cfg.run)

    import pandas as pd

    from seg.data.cases import folder
    from seg.data.fingerprint import fingerprint
    from seg.deploy.predictor import Predictor
    from seg.deploy.scoring import own_test, place_of, scored, seen, suits, unchanged, was_scored
    from seg.engine.console import log_to, print_summary
    from seg.engine.rows import part_metrics
    from seg.records.journal import Journal
    from seg.records.pending import add_to_record
    from seg.records.readings import note_reading, part_of

    log_to()
    if cfg.data.root == "":
        raise ConfigError("data.root is empty. Give it a value, or leave it out for the run's own test part.")
    own = cfg.data.root is None
    cases = own_test(run) if own else folder(cfg.data.root, name=cfg.data.name, patient=cfg.data.patient)
    predictor = Predictor.load(run.run, device=cfg.device)
    suits(cases, predictor)
    sheared = bool(predictor.package.settings["data"]["allow_shear"])
    prints = fingerprint(cases, Path(cfg.paths.cache), allow_shear=sheared, empty=True)
    if own:
        unchanged(run, prints)
    known = [] if own else seen(run, prints)
    place = place_of(Path(cfg.paths.outputs) / "scores" / run.run.name, None if own else cases.name, prints)
    masks = place if cfg.masks else None
    table = pd.DataFrame([row for case in cases.cases for row in scored(case, cases, predictor, run, masks)])
    part = part_of({case.id: prints.by_id[case.id].sha256 for case in cases.cases})
    note_reading(Path(cfg.paths.outputs), part, kind="run", reader=run.run_id, name=run.run.name)
    if own and not was_scored(run):  # out of fold: those scores stay what the run is known by
        atomic_write(run.cases, table.to_csv(index=False))
        Journal(run.run).append_file(run.cases, "data")
        add_to_record(run.run, metrics=part_metrics(table, "test"))
    atomic_write(place / "cases.csv", table.to_csv(index=False))  # last: what was interrupted is scored again
    lines = {"run": run.run_id, "data": f"{cases.name} ({cfg.data.root or 'the test part'})", "scores": place}
    kinds = {0: "Test", len(cases.cases): "Training"}
    print_summary(table, lines, of=kinds.get(len(known), "Partly training"))


def score_tools(cfg: DictConfig) -> None:
    """Scores masks made elsewhere, and of several tools compares each with the first, case by case.

    Writes ``<outputs>/scores/<name>/cases.csv``, and of several tools the tables and figures of a study.
    """
    from seg.engine.console import log_to, print_lines
    from seg.engine.masks import matched, score_masks, tools
    from seg.study.figures import write_figures
    from seg.study.tables import write_tables
    from seg.study.tools import compare_tools, scores_table
    from seg.study.typeset import markdown

    log_to()
    tolerance = 1.0 if cfg.nsd_tolerance_mm is None else number(cfg.nsd_tolerance_mm)
    if not (isinstance(tolerance, int | float) and 0 <= tolerance < math.inf):
        raise ConfigError(f"nsd_tolerance_mm is {tolerance}; it must be a number of mm, 0 or more.")
    made = tools([cfg.pred] if isinstance(cfg.pred, str) else list(cfg.pred))
    name = cfg.data.name or "_".join(made)
    classes = cfg.classes if cfg.classes is None or isinstance(cfg.classes, str) else list(cfg.classes)
    cases = matched(made, Path(cfg.ref), classes=classes, name=name, patient=cfg.data.patient)
    table = score_masks(cases, tolerance)
    place = Path(cfg.paths.outputs) / "scores" / file_name(name, "masks")
    atomic_write(place / "cases.csv", table.to_csv(index=False))
    print(markdown(scores_table(table, [*made])))
    if len(made) > 1:
        found = compare_tools(table, [*made])
        write_tables(found, place)
        write_figures(found, place)
        print("", *(f"- {sentence}" for sentence in found.sentences()), sep="\n")
    print_lines({"scores": place})


run = verb("score", main, lists=("pred", "classes"))

if __name__ == "__main__":
    run()
