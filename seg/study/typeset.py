"""Tables as Markdown and as LaTeX: a cell may hold any text, which is printed unchanged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "[": "{[}", "−": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "▲": r"$^{+}$", "▼": r"$^{-}$", "†": r"$^{\dagger}$",
    "≈": r"$^{\approx}$", "–": "--", "\n": " ",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One text, perhaps in bold, perhaps with a mark behind it. ``links``: addresses of its lines, for pages."""

    text: str
    bold: bool = False
    mark: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Headings and rows, with what must be said below them; rows under the same title are together."""

    name: str
    heads: Sequence[str]
    blocks: Mapping[str, Sequence[Sequence[Cell]]]
    note: str


def markdown_text(text: str) -> str:
    """Names cannot start emphasis, HTML or a new cell; an underscore within a word may stay."""
    escaped = re.sub(r"[\\`*|]|\](?=[(\[:])|<(?=[a-zA-Z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return escaped.replace("\n", " ")


def markdown(table: Table) -> str:
    """A heading, the table in GitHub's Markdown, its note."""

    def cell(one: Cell) -> str:
        text = markdown_text(one.text)
        return (f"**{text}**" if one.bold else text) + (f" {one.mark}" if one.mark else "")

    lines = [f"### {table.name}", ""]
    lines += [_row([markdown_text(head) for head in table.heads]), _row(["---", *["---:"] * (len(table.heads) - 1)])]
    for title, rows in table.blocks.items():
        if title:
            lines.append(_row([f"*{markdown_text(title)}*", *[""] * (len(table.heads) - 1)]))
        lines += [_row([cell(one) for one in row]) for row in rows]
    return "\n".join([*lines, "", markdown_text(table.note)])


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def latex_text(text: str) -> str:
    """Names and signs as LaTeX reads them."""
    return "".join(TEX.get(letter, letter) for letter in text)


def latex(table: Table, study: str = "") -> str:
    """A float with the note in its caption, as wide as it must be and no wider than the line.

    Args:
        table: cells may hold any text.
        study: goes into the label, so that the labels of two studies differ.
    """
    label = re.sub(r"[^a-z0-9]+", "-", f"{study} {table.name}".lower()).strip("-")

    def row(texts: Sequence[str]) -> str:
        return " & ".join(texts) + r" \\"

    def cell(one: Cell) -> str:
        text = latex_text(one.text)
        return (rf"\textbf{{{text}}}" if one.bold else text) + latex_text(one.mark)

    body = [r"\toprule", row([latex_text(head) for head in table.heads])]
    for title, rows in table.blocks.items():
        heading = [rf"\multicolumn{{{len(table.heads)}}}{{l}}{{\emph{{{latex_text(title)}}}}} \\"] if title else []
        body += [r"\midrule", *heading, *(row([cell(one) for one in each]) for each in rows)]
    return "\n".join(
        [
            r"\begin{table}[t]", r"\centering\small", rf"\caption{{{table.name}. {latex_text(table.note)}}}\smallskip",
            rf"\label{{tab:{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}", *body, r"\bottomrule", r"\end{tabular}}",
            r"\end{table}", "",
        ]
    )  # fmt: skip
