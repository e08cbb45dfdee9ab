"""What a study found: its runs gathered from the record, its tables, its figures and its page."""

import html
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg.atomic import atomic_write
from seg.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from seg.report.statistics import Analysis
    from seg.report.typeset import Table

FILE = "study.json"
_COSTS = {  # in a run's record → in the table
    "params.parameters": "params",
    "gflops_a_patch": "gflops",
    "total_training_seconds": "training_seconds",
    "peak_memory_mib": "memory_mib",
    "inference_seconds_a_case": "inference_seconds_a_case",
    "energy_kwh": "energy_kwh",
}
_FIGURES = {
    "forest": "Mean paired differences with their intervals; the numbers are in the table of comparisons.",
    "differences": "Paired differences of every patient, as boxes and points.",
}


@dataclass(frozen=True)
class Asked:
    """What a study asked, kept in its sweep's folder."""

    name: str
    sweep: str
    question: str
    arms: tuple[str, ...]  # the baseline first
    different: dict[str, dict[str, Any]]  # what each arm changes, resolved
    factors: dict[str, dict[str, str]]  # of a factorial design: for each factor the level of each arm
    against: tuple[str, ...]
    margin: float  # Dice
    runs: int  # that make it whole

    def write(self, folder: Path) -> None:
        """Keeps it in ``folder``."""
        atomic_write(folder / FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Asked":
        """What ``write`` kept."""
        content = json.loads((folder / FILE).read_text())
        return cls(**content | {key: tuple(content[key]) for key in ("arms", "against")})


def main(cfg: DictConfig) -> None:
    """Makes a study's report again from what the record holds, whole or half done.

    Raises:
        ConfigError: no study is named, or none of that name was run here.
        DataError: its scores do not fit together.
    """
    study = cfg.study or cfg.experiments
    if not study:
        raise ConfigError("Say which study: python -m seg.report experiments=attention")
    outputs = Path(cfg.paths.outputs)
    folder = find_sweep(outputs, str(study))
    print(report(folder, outputs, cfg.tracking.uri)[0])


def find_sweep(outputs: Path, study: str) -> Path:
    """The folder of the latest sweep of a study, which may be named by the sweep too.

    Raises:
        ConfigError: there is none.
    """
    found = sorted((outputs / "sweeps").glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
    names = {path.parent: Asked.read(path.parent).name for path in found}
    if mine := [folder for folder, name in names.items() if study in (name, folder.name)]:
        return mine[-1]
    there = ", ".join(sorted(set(names.values()))) or "none"
    raise ConfigError(
        f"No sweep of the study {study} lies in {outputs / 'sweeps'}; the studies there: {there}. "
        f"Run it: python -m seg.train -m experiments={study}"
    )


def report(folder: Path, outputs: Path, uri: str | None) -> tuple[str, list[Path]]:
    """Writes tables, figures and page of the study in the sweep's ``folder`` from what the record holds.

    Args:
        folder: of the sweep; the files go there.
        outputs: holds the runs.
        uri: of MLflow; None: as the runs were recorded.

    Returns:
        The findings as Markdown, for the terminal, and the files written.

    Raises:
        DataError: scores that do not fit together.
    """
    from seg.report.figures import write_figures
    from seg.report.statistics import analyse
    from seg.report.tables import markdown, tables, write_tables
    from seg.runs import runs, scores_of

    asked = Asked.read(folder)
    table = runs(outputs, uri, sweep=asked.sweep, status="finished")
    table = table[table["arm"].isin(asked.arms)] if "arm" in table else table
    head = f"# {asked.name}\n\n{asked.question}\n"
    if len(table) < asked.runs:
        head += f"\n**Not the result yet: {len(table)} of {asked.runs} runs are finished.**\n"
    there = [arm for arm in asked.arms if len(table) and arm in set(table["arm"])]
    if len(there) < 2 or asked.arms[0] not in there:
        return f"{head}\nThere is nothing to compare so far: the baseline and another arm must have finished.\n", []
    scores = scores_of(table, outputs, uri).merge(table[["run_id", "arm", "seed", "fold"]], on="run_id")
    rule: Any = "refuse" if len(table) >= asked.runs else "common"
    analysis = analyse(
        scores, baseline=there[0], arms=there, against=asked.against, margin=asked.margin, incomplete=rule
    )
    cost = costs(table)
    scores.to_csv(folder / "scores.csv", index=False)
    written = [folder / "scores.csv", *write_tables(analysis, folder, cost), *write_figures(analysis, folder)]
    effects = factor_effects(asked, scores)
    if effects is not None:
        atomic_write(folder / "effects.csv", effects.to_csv(index=False))
        written.append(folder / "effects.csv")
    page = _page(asked, head, analysis, tables(analysis, cost), effects, folder)
    atomic_write(folder / "report.html", page)
    return f"{head}\n{markdown(analysis, cost)}", [*written, folder / "report.html"]


def costs(table: "pd.DataFrame") -> "pd.DataFrame":
    """What each arm took, by the names of seg.report.tables: means over its runs, for memory the largest."""
    known = {name: short for name, short in _COSTS.items() if name in table}
    ways = {name: "max" if name == "peak_memory_mib" else "mean" for name in known}
    return table.groupby("arm").agg(ways).rename(columns=known)


def factor_effects(asked: Asked, scores: "pd.DataFrame") -> "pd.DataFrame | None":
    """Main effects and interactions of a factorial design; None for another one, or while an arm is missing."""
    from seg.report.factorial import effects

    if not asked.factors or set(scores["arm"]) != set(asked.arms):
        return None
    levels = {factor: scores["arm"].map(by_arm) for factor, by_arm in asked.factors.items()}
    return effects(scores.assign(**levels), list(asked.factors), margin=asked.margin)


def _page(
    asked: Asked,
    head: str,
    analysis: "Analysis",
    tables: "list[Table]",
    effects: "pd.DataFrame | None",
    folder: Path,
) -> str:
    """One file that needs no network: question, findings, tables, figures, what the arms are."""
    notice = next((line.strip("*") for line in head.splitlines() if line.startswith("**")), "")
    words = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in analysis.sentences())
    figures = "".join(
        f"<figure role=img aria-label='{alt}'>{_svg(folder / f'{name}.svg')}<figcaption>{alt}</figcaption></figure>"
        for name, alt in _FIGURES.items()
        if (folder / f"{name}.svg").exists()
    )
    arms = "".join(
        f"<tr><th scope=row>{html.escape(arm)}</th><td>{_changes(asked.different.get(arm, {}))}</td></tr>"
        for arm in asked.arms
    )
    shown = "".join(map(_html, tables))
    if effects is not None:
        plain = effects.to_html(index=False, float_format="{:.4f}".format, border=0)
        shown += f"<h2>Effects of the factors</h2><div class=wide>{plain}</div>"
    return _PAGE.format(
        title=html.escape(asked.name),
        question=html.escape(asked.question),
        notice=f"<p class=notice role=status>{html.escape(notice)}</p>" if notice else "",
        words=words,
        tables=shown,
        figures=figures,
        arms=arms,
    )


def _html(table: "Table") -> str:
    head = "".join(f"<th scope=col>{html.escape(text)}</th>" for text in table.heads)
    body = []
    for title, rows in table.blocks.items():
        if title:
            body.append(f"<tr><th class=block colspan={len(table.heads)}>{html.escape(title)}</th></tr>")
        for first, *rest in rows:
            cells = "".join(
                f"<td>{'<b>' * cell.bold}{html.escape(cell.text)}{'</b>' * cell.bold} {cell.mark}</td>" for cell in rest
            )
            body.append(f"<tr><th scope=row>{html.escape(first.text)}</th>{cells}</tr>")
    return (
        f"<h2>{html.escape(table.name)}</h2><div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div><p class=note>{html.escape(table.note)}</p>"
    )


def _changes(different: dict[str, Any]) -> str:
    if not different:
        return "the baseline"
    return "<br>".join(f"<code>{html.escape(f'{key}: {value}')}</code>" for key, value in different.items())


def _svg(path: Path) -> str:
    """The picture without what only a file of its own needs; its names are ours, its texts escaped by matplotlib."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c1c1e; --faint: #6b6b70; --line: #d9d9de; --paper: #fff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #ececee; --faint: #a0a0a6; --line: #3a3a40; --paper: #161618; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .6rem; }}
.question {{ font-size: 1.15rem; color: var(--faint); margin: .2rem 0 1.4rem; }}
.notice {{ border-left: 4px solid #c77700; padding: .4rem .8rem; }}
.note, figcaption {{ color: var(--faint); font-size: .85rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td {{ white-space: nowrap; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }}
th[scope=row], th.block, th:first-child, .arms td {{ text-align: left; }} th.block {{ font-style: italic; }}
figure {{ margin: 1.5rem 0; background: #fff; padding: .6rem; }} figure svg {{ max-width: 100%; height: auto; }}
</style></head>
<body><main>
<h1>{title}</h1><p class=question>{question}</p>{notice}
<ul>{words}</ul>
{figures}
{tables}
<h2>What each arm changes</h2><div class=wide><table class=arms><tbody>{arms}</tbody></table></div>
</main></body></html>
"""


def run() -> None:
    """``python -m seg.report``."""
    from seg.cli import entry

    entry("report", main)()
