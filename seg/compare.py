"""``python -m seg.compare``: one HTML file with the same case and slice from several runs beside the reference."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg.config.command import verb
from seg.config.content import number
from seg.errors import ConfigError, counted, few, together
from seg.files import atomic_write, file_name
from seg.records.folder import RunFolder, find

if TYPE_CHECKING:
    from seg.pages.compare import Page


def main(cfg: DictConfig) -> None:
    """Writes the page of the chosen runs and says where it is.

    Raises:
        ConfigError: it is not clear which runs are meant, or the page cannot be made as asked.
        DataError: something of the runs is missing or was changed, or they are of different data sets.
    """
    from seg.pages.compare import compare

    check(cfg)
    outputs = Path(cfg.paths.outputs)
    chosen = selected(cfg, outputs)
    page = compare(
        chosen,
        outputs,
        name=f"Study {cfg.study}" if cfg.study is not None else f"Sweep {cfg.sweep}" if cfg.sweep is not None else "",
        pooled=cfg.folds == "pooled" or (cfg.folds == "auto" and cfg.runs is None),
        root=cfg.data.root,
        channel=None if cfg.channel == "auto" else int(cfg.channel),
        window=None if cfg.window == "auto" else (float(cfg.window[0]), float(cfg.window[1])),
        max_mb=cfg.max_mb,
    )
    path = Path(cfg.file) if cfg.file else outputs / "compare" / f"{page_name(cfg, chosen)}.html"
    atomic_write(path, page.text)
    print("\n".join(summary(page, path)))


def check(cfg: DictConfig) -> None:
    """Holds the rules of ``conf/compare.yaml``; ConfigError with every fault."""
    given = [key for key in ("runs", "study", "sweep") if cfg[key] is not None]
    window, faults = [*map(number, cfg.window)] if OmegaConf.is_list(cfg.window) else cfg.window, []
    if len(given) != 1 or (cfg.runs is not None and not cfg.runs):
        options = "runs=[a1b2c3d4,e5f6a7b8], study=attention or sweep=tune_unetpp"
        faults.append(f"Choose the runs to compare by one of {options}; given: {', '.join(given) or 'none'}.")
    if cfg.folds not in ("auto", "pooled", "apart"):
        faults.append(f"folds is {cfg.folds!r}; it must be pooled, apart or auto.")
    if not _is_number(cfg.max_mb) or cfg.max_mb < 1:
        faults.append(f"max_mb is {cfg.max_mb!r}; it must be a number, 1 or more.")
    channel = number(cfg.channel)
    if channel != "auto" and (type(channel) is not int or channel < 0):
        faults.append(f"channel is {cfg.channel!r}; it must be auto, or a whole number, 0 or more.")
    pair = isinstance(window, list) and len(window) == 2 and all(map(_is_number, window)) and window[0] < window[1]
    if window != "auto" and not pair:
        faults.append(f"window is {window}; it must be auto or two image values, the lower one first: [-160,240].")
    together(ConfigError, faults)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def selected(cfg: DictConfig, outputs: Path) -> list[RunFolder]:
    """The folders of the runs that the user means, each once: in the order given, or a study's from first to last.

    Raises:
        ConfigError: a run is not known, or a study or sweep has no finished run here.
    """
    if cfg.runs is not None:
        named = list(cfg.runs) if OmegaConf.is_list(cfg.runs) else [cfg.runs]
        return list({folders.run_id: folders for folders in (find(outputs, str(run)) for run in named)}.values())
    from seg.pages.compare import here
    from seg.records.table import runs as recorded

    kind, value = ("study", str(cfg.study)) if cfg.study is not None else ("sweep", str(cfg.sweep))
    asked: dict[str, Any] = {kind: value}
    table = recorded(outputs, cfg.tracking.uri, status="finished", **asked)
    sweeps = list(dict.fromkeys(table["sweep"].dropna())) if kind == "study" and "sweep" in table else []
    if len(sweeps) > 1:  # only the latest
        table = table[table["sweep"] == sweeps[0]]
        print(f"{value} was run {len(sweeps)} times: these are the runs of {sweeps[0]}. Others: sweep={sweeps[1]}")
    wanted = [run_id for run_id in table["run_id"][::-1] if run_id not in set(table["parent"])]
    chosen, away = here(wanted, outputs)
    if away:
        print(f"Left out: {counted(len(away), 'run')} of {kind}={value} without a folder in {outputs}: {few(away)}.")
    if not chosen:
        raise ConfigError(f"{kind}={value} has no finished run in {outputs}. Wait for one, or set paths.outputs=…")
    return chosen


def page_name(cfg: DictConfig, chosen: Sequence[RunFolder]) -> str:
    """The study or sweep, or the short ids of the runs; of many runs their number and a hash of their ids."""
    name = cfg.study if cfg.study is not None else cfg.sweep
    if name is not None:
        return file_name(str(name), "study")
    if len(chosen) <= 3:
        return "-".join(folders.short for folders in chosen)
    ids = " ".join(folders.run_id for folders in chosen)
    return f"{len(chosen)}-runs-{hashlib.sha256(ids.encode()).hexdigest()[:8]}"


def summary(page: "Page", path: Path) -> list[str]:
    """What the user reads at the end."""
    cases, size_mb = counted(len(page.how), "case"), len(page.text.encode()) / 1e6
    lines = [f"{path.absolute()}: {page.shown}, {cases}, {size_mb:.1f} MB. Open it in a browser."]
    lines += [f"{words}; max_mb=… changes that." for words in page.packed]
    if page.missing:
        lines.append(f"{counted(len(page.missing), 'mask')} not found: {few(page.missing)}.")
    return lines


run = verb("compare", main, lists=("runs", "window"))

if __name__ == "__main__":
    run()
