"""``python -m seg.runs study=… sort=test_dice``: the runs as a table, whether MLflow or their own folders hold them.

From Python, ``seg.records.table.runs(Path("outputs"), study="attention")`` gives the same as a pandas DataFrame.
"""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg.config.command import verb
from seg.config.content import number
from seg.errors import ConfigError, nearest, together
from seg.files import atomic_write
from seg.records.table import arranged, check_columns, runs, sources

if TYPE_CHECKING:
    import pandas as pd

_FILTERS = ("run", "study", "sweep", "arm", "status", "dataset")
_USUAL = ("name", "status", "arm", "trial", "seed", "fold", "best_val_dice", "test_dice", "test_hd95_mm", "seconds")
_OF_A_CASE = ("name", "arm", "trial", "seed", "fold", "case_dice", "case_hd95_mm")


def main(cfg: DictConfig) -> None:
    """Prints the table, and writes it where ``csv`` says; or what differs between two runs.

    Raises:
        ConfigError: no run is meant, an unknown column or case, or MLflow does not answer.
    """
    outputs, uri = Path(cfg.paths.outputs), cfg.tracking.uri
    if cfg.diff is not None:
        print(differing(cfg, outputs, uri))
        return
    wanted: dict[str, Any] = {key: str(cfg[key]) for key in (*_FILTERS, "case") if cfg[key] is not None}
    table = runs(outputs, uri, **wanted)
    if table.empty:
        raise ConfigError(_none_found(outputs, uri, wanted))
    ranked, table = table, arranged(table, cfg.sort or ("case_dice" if "case" in wanted else "started"), cfg.reverse)
    given = [cfg.columns] if isinstance(cfg.columns, str) else list(cfg.columns or ())
    check_columns(given, table)
    first = number(cfg.top)
    if first is not None and not (isinstance(first, int) and first > 0):
        raise ConfigError(f"top is {cfg.top!r}; it must be a whole number, 1 or more.")
    top = table.head(first or len(table))
    usual = [*(_OF_A_CASE if "case" in wanted else _USUAL), cfg.sort]
    telling = [name for name in usual if name in top and (name == cfg.sort or top[name].notna().any())]
    show(top, given or [name for name in telling if name != "arm" or not top["arm"].equals(top["name"])])
    if "case" in wanted:
        known = ranked.dropna(subset="case_dice")  # none where a run rightly predicts nothing
        for word, row in zip(("best", "worst"), [known.iloc[n] for n in (0, -1) if len(known)], strict=False):
            print(
                f"{word:<5}  {row['run_id_short']}  {row['case_dice']:.4f}  {row['picture'] or 'has no picture here'}"
            )
    if cfg.csv:
        kept = top[given] if given else top
        atomic_write(Path(cfg.csv), kept.to_csv(index=False))
        print(f"Wrote {len(kept)} runs with {kept.shape[1]} columns to {cfg.csv}.")


def differing(cfg: DictConfig, outputs: Path, uri: str | None) -> str:
    """What differs between the two runs of ``diff``, in lines for the terminal.

    Raises:
        ConfigError: there are not two, or another key is set, too.
    """
    from seg.config.compose import defaults_of
    from seg.records.difference import described, difference, effective
    from seg.sweep.jobs import lines_of

    named = list(cfg.diff) if OmegaConf.is_list(cfg.diff) else [cfg.diff]
    idle = [key for key in (*_FILTERS, "case", "sort", "top", "columns", "csv") if cfg[key] is not None]
    faults = [f"diff names {len(named)}; it compares two runs: diff=[a1b2,c3d4]."] if len(named) != 2 else []
    faults += [f"{key} would be ignored beside diff. Leave it out." for key in idle]
    together(ConfigError, faults)
    one, other = (described(outputs, uri, str(run)) for run in named)
    found = difference(one, other, partial(defaults_of, "train"))

    def overrides(keys: Sequence[str]) -> str:
        return shlex.join(lines_of({key: [found.values[key]] for key in keys}))

    effect = effective(found.values)
    chosen = shlex.join(f"{group}={option}" for group, option in found.options.items())
    lines = {
        "overrides": " ".join(filter(None, [chosen, overrides(effect)])) or "none: what may change a score is the same",
        "leave out": shlex.join(lines_of({key: [value] for key, value in found.leave_out.items()})),
        "without effect": overrides([key for key in found.values if key not in effect]),
        **found.other,
        "the same": ", ".join(found.same),
    }
    heads = [f"{run.record.run_id[:8]} ({run.record.name})" for run in (one, other)]
    room = max(map(len, lines))
    return "\n".join([" → ".join(heads), *(f"  {what:<{room}}  {text}" for what, text in lines.items() if text)])


def show(table: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Prints the short run id and ``columns``; no id and no number is ever cut, whatever the terminal's width."""
    from pandas.api.types import is_numeric_dtype
    from rich.table import Table
    from rich.text import Text

    from seg.engine.console import print_table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    cells = []
    for name in dict.fromkeys(["run_id_short", *columns]):
        header = "run" if name == "run_id_short" else name
        cells.append(_texts(table[name]))
        number = is_numeric_dtype(table[name])
        width = max(map(len, [header, *cells[-1]])) if number or header == "run" else None  # never cut
        grid.add_column(Text(header), justify="right" if number else "left", min_width=width, overflow="fold")
    for row in zip(*cells, strict=True):
        grid.add_row(*map(Text, row))
    print_table(grid)


def _texts(column: "pd.Series") -> list[str]:
    """The cells of a column; numbers with as many decimals as the column needs, – for what is missing."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    style = "{}"
    if is_datetime64_any_dtype(column):
        style = "{:%Y-%m-%d %H:%M}"
    elif is_numeric_dtype(column):
        sizes = column.abs()[column != 0]
        digits = 0 if (sizes.dropna() % 1 == 0).all() else 4 if sizes.max() < 10 else 2 if sizes.max() < 100 else 1
        style = "{:.3g}" if digits and sizes.min() < 0.001 else f"{{:.{digits}f}}"
    return ["–" if missing else style.format(value) for value, missing in zip(column, column.isna(), strict=True)]


def _none_found(outputs: Path, uri: str | None, wanted: Mapping[str, str]) -> str:
    """Where the runs were looked for, and what may have been meant."""
    places = " and ".join([*(store.name for store in sources(outputs, uri)[1]), str(outputs / "runs")])
    known = runs(outputs, uri)
    if known.empty or not wanted:
        return f"There is no run in {places}. Say where they are: paths.outputs=… or tracking.uri=…"
    hints = ""
    for key, value in wanted.items():
        if key == "case":
            continue
        column = {"run": "run_id"}.get(key, key)
        values = sorted(set(known[column].dropna())) if column in known else []
        if value.upper() not in map(str.upper, values):
            hints += nearest(value, values) or f" There is {key}={', '.join(values[:10]) or 'nothing'}."
    asked = " ".join(f"{key}={value}" for key, value in wanted.items())
    return f"None of {len(known)} runs in {places} has {asked}.{hints}"


run = verb("runs", main, lists=("columns", "diff"))

if __name__ == "__main__":
    run()
