"""The compare page: the same case and slice from several runs beside the reference, and their scores by case.

One HTML file that needs nothing else: no server, no network, no other file. What a data set or a run is named can do no
harm to it: all data are JSON without the character ``<``, the page writes them as text only, and its
Content-Security-Policy lets nothing run or load but the style and the scripts of this package, by their hashes.

The volumes of a case are in a script element of their own, which the page unpacks when the case is opened; so the size
of the file hardly delays its first picture.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seg.config.build import build
from seg.data.cases import Case, CaseSet
from seg.data.plan import ChannelNorm
from seg.errors import ConfigError, DataError, counted, few, together
from seg.metrics import MEAN_OF_CLASSES, METRICS, dice, unit_in
from seg.pages.columns import Column, columns_of, measures_of, runs_html
from seg.pages.html import page, resource
from seg.pages.volumes import Volumes, pack, read_volumes
from seg.records.folder import RunFolder, by_id
from seg.records.scored import ScoredRun, differences, grouped, ui_commands
from seg.regions import inside, structures
from seg.study.drawing import ERROR_COLORS, class_colors

SCRIPTS = ("elements.js", "compare_slices.js", "compare.js")
ROUNDING = 1e-3  # of a dice in a table that was written with few digits
FIXED = 700  # characters of a case beside its volumes and its scores, more or less


@dataclass
class Page:
    """The page and what is worth knowing of it: how each case was packed, and which masks were not found.

    ``shared`` counts the cases that two columns or more have a mask of.
    """

    runs: int
    columns: int
    shared: int = 0
    text: str = ""
    how: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """How many runs, in how many columns where these are fewer."""
        columns = f" in {counted(self.columns, 'column')}" if self.columns < self.runs else ""
        return counted(self.runs, "run") + columns

    @property
    def packed(self) -> list[str]:
        """What was left out to keep the page under its size, in words."""
        many = Counter(self.how.values())
        return [
            f"{counted(many[how], 'case')} {words} to keep the page under its size"
            for how, words in (("cropped", "cropped around the structures"), ("coarser", "cropped and made coarser"))
            if many[how]
        ]


def compare(
    folders: Sequence[RunFolder],
    outputs: Path,
    *,
    name: str = "",
    pooled: bool = False,
    root: str | None = None,
    channel: int | None = None,
    window: tuple[float, float] | None = None,
    max_mb: float = 30,
) -> Page:
    """The page of these runs; ``atomic_write(path, page.text)`` writes it.

    Args:
        folders: of the runs, in the order of the page.
        outputs: holds them.
        name: begins the title; "": how many runs there are.
        pooled: runs that differ only in their fold, and share no test case, in one column.
        root: of the data set; None: where the runs found it.
        channel: of the image; None: the first, or of colours their brightness.
        window: image values shown black and white at first; None: of CT the plan's, otherwise of each case its own.
        max_mb: of the page.

    Raises:
        ConfigError: the page cannot be made so.
        DataError: something of the runs is missing or was changed, or they are of different data sets.
    """
    runs = [ScoredRun(one) for one in folders]
    together(DataError, [run.fault for run in runs if run.fault])
    together(DataError, differences(runs))
    caseset = case_set(runs, root)
    columns = columns_of(grouped(runs) if pooled else [[run] for run in runs])
    title = f"{name or (counted(len(runs), 'run') if len(runs) > 1 else runs[0].name)} on {caseset.name}"
    made = Page(len(runs), len(columns))
    measures = measures_of(columns)
    axis, usual = _view(runs[0], channel)
    about = _about(caseset, columns, measures, channel) | {"title": title, "axis": axis}
    about["cases"] = [_scores(case, columns, measures, caseset.names[1:]) for case in caseset.cases]
    scripts, style = [resource(script) for script in SCRIPTS], resource("compare.css")
    frame = resource("compare.html") + runs_html(columns, measures, ui_commands(runs, outputs))
    spent = sum(map(len, [*scripts, style, frame, _json(about)])) + FIXED * (1 + len(caseset.cases))
    payloads = _volumes(
        made, about, caseset, columns, channel=channel, window=window or usual, max_mb=max_mb, spent=spent
    )
    lead = " · ".join([made.shown, counted(len(made.how), "case"), *made.packed, time.strftime("made %Y-%m-%d %H:%M")])
    made.text = page(title, lead, frame + _data_html(about, payloads), style=style, scripts=scripts)
    return made


def here(run_ids: Sequence[str], outputs: Path) -> tuple[list[RunFolder], list[str]]:
    """The folders of the runs that have one in ``outputs``, in their order, and the ids of the others."""
    known = by_id(outputs)
    return [known[run_id] for run_id in run_ids if run_id in known], [id_ for id_ in run_ids if id_ not in known]


def case_set(runs: Sequence[ScoredRun], root: str | None) -> CaseSet:
    """The data set of the runs, from where it is now; patients as the runs noted them.

    Raises:
        DataError: it is not there, or lacks a case.
    """
    roots = list(dict.fromkeys(str(root or run.cfg.data.root) for run in runs))
    there = [root for root in roots if Path(root).exists()]
    if not there:  # asked before it is built: a data set that can make itself would be made again
        raise DataError(f"{few(roots)}: no such folder. Say where the data of the runs are now: data.root=…")
    data = runs[0].cfg.data
    cases: CaseSet = build(data.cases, root=there[0], name=data.name, patient=None)
    patients = {case: patient for run in runs for case, patient in run.table[["case", "patient"]].to_numpy()}
    tested = [replace(case, patient=patients[case.id]) for case in cases.cases if case.label and case.id in patients]
    if unknown := patients.keys() - {case.id for case in tested}:
        raise DataError(f"The runs were tested on cases that {cases.name} does not have now: {few(unknown)}.")
    return replace(cases, cases=tuple(sorted(tested, key=lambda case: case.id)))


def _view(run: ScoredRun, channel: int | None) -> tuple[int, tuple[float, float] | None]:
    """Axis across which the run's own pictures cut, and their window, so that the page looks like them at first."""

    def parsed(text: str) -> tuple[int, list[tuple[float, float] | None]]:
        plan = json.loads(text)
        return int(plan["slice_axis"]), [ChannelNorm(**norm).window for norm in plan["normalization"]]

    path = run.folders.plan
    axis, windows = run.folders.read(path, parsed) if path.exists() else (2, [])
    return axis, windows[channel or 0] if (channel or 0) < len(windows) else None


def _about(
    caseset: CaseSet, columns: Sequence[Column], measures: dict[str, str], channel: int | None
) -> dict[str, Any]:
    """Everything the page must know besides the cases."""
    names, lengths = caseset.names[1:], columns[0].lengths
    shown = dict(enumerate(caseset.channels)) | ({None: "brightness"} if lengths == "pixels" else {})
    looks = zip(names, class_colors(len(names)), structures(len(names), caseset.within), strict=True)
    return {
        "unit": lengths,
        "channel": shown.get(channel, caseset.channels[0] if channel is None else ""),
        "channels": len(caseset.channels),
        "mean": MEAN_OF_CLASSES,
        "classes": [{"name": name, "color": color, "indices": indices} for name, color, indices in looks],
        "errors": [{"name": name, "color": color} for name, color in ERROR_COLORS.items()],
        "measures": [
            {"key": key, "name": name, "unit": unit_in(METRICS[key].unit, lengths), "better": METRICS[key].better}
            | {"digits": METRICS[key].digits}
            for key, name in measures.items()
        ],
        "runs": [{"label": column.label} for column in columns],
    }


def _scores(case: Case, columns: Sequence[Column], measures: Iterable[str], classes: Sequence[str]) -> dict[str, Any]:
    """A case and its scores: by column, None where it was not tested; by measure; mean of classes, then each class."""
    scores = [
        [column.values(case.id, measure, classes) for measure in measures] if case.id in column.scores else None
        for column in columns
    ]
    return {"id": case.id, "patient": case.patient, "scores": scores}


def _volumes(
    made: Page,
    about: dict[str, Any],
    caseset: CaseSet,
    columns: Sequence[Column],
    *,
    channel: int | None,
    window: tuple[float, float] | None,
    max_mb: float,
    spent: int,
) -> list[str]:
    """The packed volumes of every case, in what is left of ``max_mb``; notes in ``about`` and ``made`` how."""
    budget = (int(max_mb * 1e6) - spent) // max(1, len(caseset.cases))
    payloads, faults = [], list[str]()
    for case, entry in zip(caseset.cases, about["cases"], strict=True):
        preds = [column.pred(case.id) for column in columns]
        volumes = read_volumes(case, caseset.labels, preds, channel, caseset.ignore)
        faults += _false_scores(case, volumes, caseset, columns)
        packed = pack(volumes, budget, window)
        if packed is None:
            raise ConfigError(
                f"{len(columns)} runs with so many cases do not fit into {max_mb:g} MB, though {case.id} was cropped "
                "and made coarser. Raise max_mb, or choose fewer runs."
            )
        there = [pred is not None for pred in volumes.preds]
        lost = [column for column, found in zip(columns, there, strict=True) if case.id in column.scores and not found]
        made.missing += [f"{case.id} of {column.label}" for column in lost]
        made.how[case.id] = packed.how
        made.shared += sum(there) > 1
        entry |= packed.about | {"here": there}
        payloads.append(packed.payload)
    together(DataError, faults)
    return payloads


def _false_scores(case: Case, volumes: Volumes, cases: CaseSet, columns: Sequence[Column]) -> Iterator[str]:
    """Faults: masks whose dice is not that of the run's table, so that picture and number would not belong together."""
    for column, pred in zip(columns, volumes.preds, strict=True):
        for index, name in enumerate(cases.names[1:], 1):
            noted = column.scores.get(case.id, {}).get(name, {}).get("dice")
            if pred is None or noted is None:
                continue
            mine, theirs = (inside(mask, index, cases.within) for mask in (pred, volumes.label))
            found = dice(mine, theirs, volumes.spacing_mm)
            if abs(found - noted) > ROUNDING:
                yield (
                    f"{column.pred(case.id)}: {name} has dice {found:.3f}, but the run's cases.csv says {noted:.3f}. "
                    f"The mask or {case.label} changed since the test: put the old file back, or leave the run out."
                )


def _data_html(about: dict[str, Any], payloads: Sequence[str]) -> str:
    kind = 'type="application/json"'
    data = [f'<script {kind} id="data">{_json(about)}</script>']
    data += [f'<script {kind} id="case-{n}">"{payload}"</script>' for n, payload in enumerate(payloads)]
    return "\n".join(data)


def _json(content: object) -> str:
    """ASCII without ``<``, so that nothing in it can end its element; no NaN, which is not JSON."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
