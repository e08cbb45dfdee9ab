"""One HTML file that shows the same case and slice from several runs beside the reference, with tables and a scatter.

The file needs nothing else: no server, no network, no other file. What a data set or a run is named can do no harm to
it: all data are JSON without the character ``<``, the page writes them as text only, and a Content-Security-Policy lets
nothing run or load but the style and the scripts of this package, by their hashes.

The volumes of a case stand in a script element of their own, which the page unpacks when the case is opened; so the
size of the file hardly delays its first picture.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from seg.data.cases import Case, CaseSet
from seg.errors import ConfigError, DataError, few, together
from seg.metrics import MEAN_OF_CLASSES, dice
from seg.pages.picture import ERROR_COLORS, Color, class_colors
from seg.pages.volumes import MARGIN_MM, Volumes, pack, read_volumes

SCRIPTS = ("compare_slices.js", "compare_tiles.js", "compare_tables.js", "compare.js")
ROUNDING = 1e-3  # of a dice in a table that was written with few digits
FIXED = 700  # characters of a case beside its volumes and its scores, more or less


@dataclass(frozen=True)
class Measure:
    """A column of ``cases.csv``: ``better`` is 1 where more is better, -1 where less is."""

    key: str
    name: str
    unit: str
    better: int
    digits: int


@dataclass(frozen=True)
class Record:
    """A run's full id and, where it is recorded in MLflow, the address of its page there."""

    run_id: str
    address: str | None


@dataclass(frozen=True)
class Column:
    """One run on the page; or, pooled, the runs that differ in their fold only.

    ``label`` tells it from the others in few words, ``facts`` are shown as they are, ``preds`` is the mask by case id,
    whether or not it exists, ``scores`` the measures by case id and class name.
    """

    label: str
    facts: Mapping[str, str]
    records: Sequence[Record]
    preds: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class View:
    """How the page looks at first, and how large it may be.

    ``axis`` 0 sagittal, 1 coronal, 2 axial; ``channel`` of the image; ``window`` image values shown black and white,
    None: of each case its own; ``max_bytes`` of the file; ``commands`` that serve the MLflow records without a server.
    """

    axis: int = 2
    channel: int = 0
    window: tuple[float, float] | None = None
    max_bytes: int = 30_000_000
    commands: Sequence[str] = ()
    made: str = ""


@dataclass
class Page:
    """The page and what is worth telling of it: how each case was packed, and which masks were not found.

    ``shared`` counts the cases that two columns or more have a mask of.
    """

    runs: int
    columns: int
    shared: int = 0
    text: str = ""
    how: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def compare_page(
    title: str, caseset: CaseSet, columns: Sequence[Column], measures: Sequence[Measure], view: View
) -> Page:
    """Makes the page of all cases that any of the columns has scores of.

    Args:
        title: of the page.
        caseset: image, reference and meaning of the classes.
        columns: one at least.
        measures: those that the scores have; dice among them.
        view: how it looks at first.

    Raises:
        DataError: a case is not in the data set, a file cannot be read or lies on another grid, or a mask does not
            have the dice that the run's table says.
        ConfigError: no such channel, or the page would be too large.
    """
    page = Page(sum(len(column.records) for column in columns), len(columns))
    ids = sorted({case for column in columns for case in column.scores})
    by_id = {case.id: case for case in caseset.cases if case.label}
    if unknown := set(ids) - by_id.keys():
        raise DataError(f"The runs were tested on cases that {caseset.name} does not have now: {few(unknown)}.")
    scores = {case: _scores(case, caseset.names[1:], columns, measures) for case in ids}
    template = _template(title)
    spent = sum(map(len, template.values())) + sum(len(_json(entry)) + FIXED for entry in scores.values())
    budget = (view.max_bytes - spent) // max(1, len(ids))
    cases, payloads = [], []
    for case in ids:
        about, payload = _packed(by_id[case], caseset, columns, view, budget, page)
        cases.append({"id": case, "patient": by_id[case].patient, "scores": scores[case]} | about)
        payloads.append(payload)
    together(DataError, page.faults)
    head = _head(title, caseset, columns, measures, view) | {"cases": cases}
    page.text = _filled(template, head, payloads)
    return page


def _packed(
    case: Case, caseset: CaseSet, columns: Sequence[Column], view: View, budget: int, page: Page
) -> tuple[dict[str, Any], str]:
    """What the page must know of the case's volumes, and the volumes; notes in ``page`` what is worth telling."""
    volumes = read_volumes(case, caseset.values, [column.preds.get(case.id) for column in columns], view.channel)
    page.faults += _false_scores(case, volumes, caseset, columns)
    packed = pack(volumes, budget, view.window)
    if packed is None:
        raise ConfigError(
            f"{len(columns)} runs with so many cases do not fit into {view.max_bytes / 1e6:g} MB, though {case.id} was "
            "cropped and made coarser. Set max_mb higher, or choose fewer runs."
        )
    here = [pred is not None for pred in volumes.preds]
    for column, there in zip(columns, here, strict=True):
        if case.id in column.scores and not there:
            page.missing.append(f"{case.id} of {column.label}")
    page.how[case.id] = packed.how
    page.shared += sum(here) > 1
    return packed.about | {"here": here}, packed.payload


def _scores(
    case: str, classes: Sequence[str], columns: Sequence[Column], measures: Sequence[Measure]
) -> list[list[list[float | None]] | None]:
    """By column, None where it was not tested on the case: by measure: the mean of the classes, then each class."""
    table: list[list[list[float | None]] | None] = []
    for column in columns:
        rows = column.scores.get(case)
        if rows is None:
            table.append(None)
            continue
        by_measure: list[list[float | None]] = []
        for measure in measures:
            values = [rows.get(name, {}).get(measure.key, math.nan) for name in classes]
            numbers = [sum(values) / max(1, len(values)), *values]
            by_measure.append([round(value, 5) if math.isfinite(value) else None for value in numbers])
        table.append(by_measure)
    return table


def _false_scores(case: Case, volumes: Volumes, caseset: CaseSet, columns: Sequence[Column]) -> Iterator[str]:
    """Faults: masks whose dice is not that of the run's table, so that picture and number would not belong together."""
    for column, pred in zip(columns, volumes.preds, strict=True):
        for index, name in enumerate(caseset.names[1:], 1):
            told = column.scores.get(case.id, {}).get(name, {}).get("dice", math.nan)
            if pred is None or math.isnan(told):
                continue
            found = dice(pred == index, volumes.label == index, volumes.spacing_mm)
            if abs(found - told) > ROUNDING:
                yield (
                    f"{column.preds[case.id]}: {name} has dice {found:.3f}, but the run's cases.csv says {told:.3f}. "
                    f"The mask or {case.label} changed since the test: put the old file back, or leave the run out."
                )


def _head(
    title: str, caseset: CaseSet, columns: Sequence[Column], measures: Sequence[Measure], view: View
) -> dict[str, Any]:
    names = caseset.names[1:]
    return {
        "title": title,
        "dataset": caseset.name,
        "channel": caseset.channels[view.channel] if view.channel < len(caseset.channels) else "",
        "channels": len(caseset.channels),
        "made": view.made,
        "axis": view.axis,
        "marginMm": MARGIN_MM,
        "mean": MEAN_OF_CLASSES,
        "classes": [
            {"name": name, "color": _hex(color)} for name, color in zip(names, class_colors(len(names)), strict=True)
        ],
        "errors": [{"name": name, "color": _hex(color)} for name, color in ERROR_COLORS.items()],
        "measures": [vars(measure) for measure in measures],
        "runs": [
            {"label": column.label, "facts": dict(column.facts), "records": [vars(record) for record in column.records]}
            for column in columns
        ],
        "commands": list(view.commands),
    }


def _template(title: str) -> dict[str, str]:
    """The parts of the page that hold no data, by the name of their place in ``compare.html``."""
    here = files("seg.pages")
    style, *scripts = ((here / name).read_text(encoding="utf-8") for name in ("compare.css", *SCRIPTS))
    allowed = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": " ".join(map(_hash, scripts)),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return {
        "page": (here / "compare.html").read_text(encoding="utf-8"),
        "policy": "; ".join(f"{kind} {rule}" for kind, rule in allowed.items()),
        "title": html.escape(title.encode(errors="replace").decode()),
        "style": style,
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }


def _filled(template: Mapping[str, str], head: Mapping[str, Any], payloads: Sequence[str]) -> str:
    """Puts every part into its place at once, so that none is searched for the places of others."""
    kind = 'type="application/json"'
    data = [f'<script {kind} id="data">{_json(head)}</script>']
    data += [f'<script {kind} id="case-{n}">"{payload}"</script>' for n, payload in enumerate(payloads)]
    parts = {**template, "data": "\n".join(data)}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template["page"])


def _json(content: Any) -> str:
    """ASCII without ``<``, so that nothing in it can end the element it stands in; no NaN, which is no JSON."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _hex(color: Color) -> str:
    return "#" + bytes(color).hex()
