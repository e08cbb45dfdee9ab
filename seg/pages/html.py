"""The shell of every page: one file, without network, in one look; and its tables and lists."""

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path

from seg.study.typeset import Cell, Table


def page(
    title: str, lead: str, body: str, *, style: str = "", scripts: Sequence[str] = (), connect: bool = False
) -> str:
    """The whole file. A Content-Security-Policy lets nothing load, and nothing run but ``scripts``.

    Args:
        title: any text.
        lead: any text, below the title.
        body: HTML in which every name from outside was escaped.
        style: CSS after that of all pages.
        scripts: JavaScript at the end of the page, each in an element of its own.
        connect: whether they may ask the server that the page is from.
    """
    style = resource("page.css") + style
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        # Pictures by matplotlib carry style attributes, which no hash allows; pages with scripts have no such picture.
        "style-src": _hash(style) if scripts else "'unsafe-inline'",
        "script-src": " ".join(map(_hash, scripts)) or "'none'",
    }
    if connect:
        policy["connect-src"] = "'self'"
    return (
        '<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">\n'
        f'<meta http-equiv=Content-Security-Policy content="{"; ".join(map(" ".join, policy.items()))}">\n'
        f"<title>{escaped(title)}</title><link rel=icon href=data:,>\n<style>{style}</style></head>\n"
        f"<body><main>\n<h1>{escaped(title)}</h1><p class=lead>{escaped(lead)}</p>\n{body}\n</main>\n"
        f"{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>\n"
    )


def resource(name: str) -> str:
    """A file of this package."""
    return (files("seg.pages") / name).read_text(encoding="utf-8")


def escaped(text: str) -> str:
    """Any text as HTML; half of a surrogate pair, which no file can hold, becomes ``?``."""
    return html.escape(text.encode(errors="replace").decode())


def list_html(sentences: Sequence[str]) -> str:
    """Any texts as a list."""
    return f"<ul>{''.join(f'<li>{escaped(sentence)}</li>' for sentence in sentences)}</ul>"


def fold(title: str, body: str) -> str:
    """A part of the page that is unfolded by a click or by keyboard; on paper it is there.

    Args:
        title: any text.
        body: HTML in which every name from outside was escaped.
    """
    return f"<details><summary>{escaped(title)}</summary>\n{body}\n</details>"


def table_html(table: Table, anchors: Sequence[str] = (), *, heading: bool = True, long: bool = False) -> str:
    """A heading, the table, which can be scrolled by keyboard, and its note.

    Args:
        table: cells may hold any text.
        anchors: the rows' ids, to link to them.
        heading: whether its name is shown above it.
        long: the third and the last column hold long text, which is broken.
    """
    head = "".join(f"<th scope=col>{escaped(text)}</th>" for text in table.heads)
    body, ids = [], iter(anchors)
    for title, rows in table.blocks.items():
        if title:
            body.append(f"<tr><th class=block colspan={len(table.heads)}>{escaped(title)}</th></tr>")
        for first, *rest in rows:
            anchor = next(ids, "")
            row = f'<tr id="{escaped(anchor)}" tabindex=-1>' if anchor else "<tr>"
            body.append(
                f"{row}<th scope=row>{_cell(first)}</th>{''.join(f'<td>{_cell(one)}</td>' for one in rest)}</tr>"
            )
    name, note = escaped(table.name), f"<p class=note>{escaped(table.note)}</p>" if table.note else ""
    return (
        f"{f'<h2>{name}</h2>' if heading else ''}"
        f"<div class='wide{' long' if long else ''}' tabindex=0 role=group aria-label='Table: {name}'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f"{note}"
    )


def _cell(cell: Cell) -> str:
    """Lines below each other, each with its link; bold, and a mark behind."""
    lines = [
        f'<a href="{escaped(link)}" target=_blank rel="noopener noreferrer">{escaped(line)}</a>'
        if link
        else escaped(line)
        for line, link in zip_longest(cell.text.split("\n"), cell.links, fillvalue="")
    ]
    text = "<br>".join(lines)
    text = f"<b>{text}</b>" if cell.bold else text
    return f"{text} {escaped(cell.mark)}" if cell.mark else text


def svg(path: Path) -> str:
    """The picture without what only a file of its own needs; its names are ours, its texts escaped by matplotlib."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
