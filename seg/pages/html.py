"""The pages of studies and of progress: one file each, without network, in one look."""

import html
from collections.abc import Sequence
from pathlib import Path

from seg.study.typeset import Table


def page(title: str, lead: str, body: str) -> str:
    """The whole file.

    Args:
        title: any text.
        lead: any text, below the title.
        body: HTML in which every foreign name was escaped.
    """
    return _PAGE.format(title=html.escape(title), lead=html.escape(lead), body=body)


def list_html(sentences: Sequence[str]) -> str:
    """Any texts as a list."""
    return f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ul>"


def table_html(table: Table, anchors: Sequence[str] = (), *, heading: bool = True, long: bool = False) -> str:
    """A heading, the table, which can be scrolled by keyboard, and its note.

    Args:
        table: any text may stand in it.
        anchors: the rows' ids, to link to them.
        heading: whether its name stands above it.
        long: the third and the last column hold long text, which is broken.
    """
    head = "".join(f"<th scope=col>{html.escape(text)}</th>" for text in table.heads)
    body, ids = [], iter(anchors)
    for title, rows in table.blocks.items():
        if title:
            body.append(f"<tr><th class=block colspan={len(table.heads)}>{html.escape(title)}</th></tr>")
        for first, *rest in rows:
            cells = "".join(
                f"<td>{'<b>' * cell.bold}{html.escape(cell.text)}{'</b>' * cell.bold} {cell.mark}</td>" for cell in rest
            )
            anchor = next(ids, "")
            row = f'<tr id="{html.escape(anchor)}" tabindex=-1>' if anchor else "<tr>"
            body.append(f"{row}<th scope=row>{html.escape(first.text)}</th>{cells}</tr>")
    return (
        f"<h2>{html.escape(table.name)}</h2>"
        * heading
        + f"<div class='wide{' long' * long}' tabindex=0 role=group aria-label='Table: {html.escape(table.name)}'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f"<p class=note>{html.escape(table.note)}</p>"
    )


def svg(path: Path) -> str:
    """The picture without what only a file of its own needs; its names are ours, its texts escaped by matplotlib."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c1c1e; --faint: #6b6b70; --line: #d9d9de; --paper: #fff; --mark: #fff3c4; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #ececee; --faint: #a0a0a6; --line: #3a3a40; --paper: #161618; --mark: #4a3f10; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .6rem; }}
.lead {{ font-size: 1.15rem; color: var(--faint); margin: .2rem 0 1.4rem; }}
.notice {{ border-left: 4px solid #c77700; padding: .4rem .8rem; }}
.note, figcaption {{ color: var(--faint); font-size: .85rem; }} a {{ color: inherit; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td {{ white-space: nowrap; }}
.long td:nth-child(3), .long td:last-child {{ white-space: normal; text-align: left; overflow-wrap: anywhere; }}
.long td:nth-child(3), .long td:last-child {{ min-width: 11rem; }} .long table {{ font-size: .9rem; }}
th, td {{ padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }}
th[scope=row], th.block, th:first-child, .arms td, .long th:nth-child(3), .long th:last-child {{ text-align: left; }}
th.block {{ font-style: italic; }} .long th[scope=row] {{ white-space: nowrap; }}
tr {{ scroll-margin-top: 5rem; }} tr:target {{ background: var(--mark); }}
figure {{ margin: 1.5rem 0; background: #fff; padding: .6rem; }} figure svg {{ max-width: 100%; height: auto; }}
figcaption {{ color: #6b6b70; }} summary {{ cursor: pointer; }}
:focus-visible {{ outline: 3px solid #c77700; outline-offset: 2px; }}
</style></head>
<body><main>
<h1>{title}</h1><p class=lead>{lead}</p>
{body}
</main></body></html>
"""
