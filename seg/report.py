"""``python -m seg.report``: a study's tables, figures and page; or all results on a data set over time."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError
from seg.pages.study import report
from seg.records.state import read_state
from seg.records.table import runs
from seg.study.question import Asked, find_sweep


def main(cfg: DictConfig) -> None:
    """Makes a study's report from what the record holds, complete or not; or the progress on a data set.

    Raises:
        ConfigError: it is not clear what is asked, or no run of it is known here.
        DataError: its scores do not fit together.
    """
    study, given = cfg.study or cfg.experiments, sum(map(bool, (cfg.study, cfg.experiments, cfg.data)))
    if given != 1:
        raise ConfigError(
            f"Say {'only one of them' if given else 'what to report'}: experiments=attention, a study, for its tables "
            "and its page; or data=hippocampus, a data set, for all results on it over time."
        )
    outputs = Path(cfg.paths.outputs)
    if cfg.data:
        from seg.pages.progress import progress

        print(progress(str(cfg.data), outputs, cfg.tracking.uri))
        return
    folder = find_sweep(outputs, str(study))
    found, files = report(folder, outputs, cfg.tracking.uri)
    print(f"{found}\n{folder / 'report.html' if files else folder}")
    _record(folder, files, outputs, cfg.tracking.uri)


def _record(folder: Path, files: Sequence[Path], outputs: Path, uri: str | None) -> None:
    """Puts the files of a report that was made again into the record of its sweep, once that has ended."""
    from seg.pages.compare import here
    from seg.records.pending import add_to_record

    table = runs(outputs, uri, sweep=Asked.read(folder).sweep)
    for parent in here(sorted(set(table["parent"].dropna())), outputs)[0] if files else ():
        if (state := read_state(parent.run)) and state.true_status != "RUNNING":
            add_to_record(parent.run, artifacts=files, uri=uri)


run = verb("report", main)

if __name__ == "__main__":
    run()
