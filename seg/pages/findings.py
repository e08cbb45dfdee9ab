"""The page of a study: the answer first, then one picture, then what can be unfolded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seg.errors import counted
from seg.pages.html import escaped, fold, list_html, page, svg, table_html
from seg.pages.identity import identity_table
from seg.study.analysis import Analysis
from seg.study.answer import answer, beside, remark
from seg.study.methods import Facts, checklist, glossary, methods
from seg.study.question import Asked
from seg.study.typeset import Table

_FIGURES = {
    "forest": "Mean paired differences with their intervals; the numbers are in the table of comparisons.",
    "differences": "Paired differences of every patient, as boxes and points.",
}


def findings_page(
    asked: Asked, analysis: Analysis, shown: Sequence[Table], known: Facts, compared: str, folder: Path
) -> str:
    """One file that needs no network.

    Args:
        asked: the study's question.
        analysis: its answer.
        shown: the tables of the analysis.
        known: what the record tells of its runs.
        compared: what the page of slices shows, in words; "" where there is none.
        folder: of the study, with its figures.
    """
    notice, where = analysis.meta.notice, known.dataset and f"{known.dataset}, {known.dates}".rstrip(", ")
    parts = [f"<p class=notice role=status>{escaped(notice)}</p>"] if notice else []
    parts += [f"<p class=answer>{escaped(sentence)}</p>" for sentence in answer(analysis)]
    locked = "claim" in analysis.comparisons
    for place, sentence in enumerate(analysis.meta.claims):
        parts.append(f"<p class={'notice' if locked and not place else 'note'}>{escaped(sentence)}</p>")
    parts += [f"<p class=note>{escaped(sentence)}</p>" for sentence in beside(analysis) + remark(analysis)]
    parts += [f"<p class=note>{escaped(where)}; {escaped(_size(analysis))}.</p>" if where else ""]
    parts += [_figure(folder, "forest")]
    if compared:
        link = "<a href=compare.html>The same slices from every arm, side by side</a>"
        parts.append(f"<p>{link} ({escaped(compared)}).</p>")
    parts.append(fold("The findings in words", list_html(analysis.sentences())))
    parts.append(fold("Every patient", _figure(folder, "differences")) if (folder / "differences.svg").exists() else "")
    parts += [fold(table.name, table_html(table, heading=False)) for table in shown]
    identity = replace(identity_table(asked, known), heads=["", "This study"])
    parts.append(fold("What was run, and how to repeat it", table_html(identity, heading=False, long=True)))
    text, references = methods(analysis, known)
    listed = "".join(f"<li>{escaped(source)}</li>" for source in references)
    parts.append(fold("Methods, to paste into a paper", f"<p>{escaped(text)}</p><ol>{listed}</ol>"))
    for table in (checklist(analysis, known), glossary(analysis)):
        parts.append(fold(table.name, table_html(table, heading=False, long=True)))
    return page(asked.name, asked.question, "\n".join(parts))


def _size(analysis: Analysis) -> str:
    meta = analysis.meta
    return f"{counted(meta.patients, 'patient')}, {counted(len(meta.arms), 'arm')}, {meta.seeds_each}"


def _figure(folder: Path, name: str) -> str:
    """A figure of the folder with what it shows; nothing where it is not there."""
    if not (folder / f"{name}.svg").exists():
        return ""
    alt = _FIGURES[name]
    return f"<figure role=img aria-label='{alt}'>{svg(folder / f'{name}.svg')}<figcaption>{alt}</figcaption></figure>"
