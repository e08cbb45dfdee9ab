"""Drift: whether the scans that come in are still such as a network was trained on, or such as came in earlier.

Each property of the scans is compared by ``seg.study.shifts``, all as one family (Holm). A property is beyond the limit
where its test finds a difference and its effect is large, too: among thousands of scans every trifle is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import pandas as pd
from matplotlib.figure import Figure

from seg.deploy.arrivals import SHARES, TIME, Period
from seg.errors import counted, few
from seg.study.contrasts import holm
from seg.study.drawing import GREY, INK, ORANGE, SAND, new_figure, plain
from seg.study.scores import Row
from seg.study.sentences import percent, spelled_p
from seg.study.shifts import LEVEL, shift, shift_of_shares
from seg.study.typeset import Cell, Table

FOUND = ("effect", "ci_low", "ci_high", "p")
LEAST = 10  # scans on either side; of fewer nothing is said
ROW_INCHES = 0.24


@dataclass(frozen=True)
class Limits:
    """Beyond which an effect, or that of a share, counts where its test reaches the level ``alpha``, too."""

    effect: float
    share: float
    alpha: float

    def of(self, name: str) -> float:
        """The limit of a property's effect."""
        return self.share if name in SHARES else self.effect


@dataclass(frozen=True)
class Drift:
    """What ``drift`` found.

    ``table`` has one line per property: ``property``, ``reference`` (of what), ``scans_before`` and ``scans`` (with a
    value), ``before`` and ``now`` (medians; of ``unusual`` and ``failed`` the share), ``effect``, ``ci_low``,
    ``ci_high``, ``p``, ``p_holm``, ``beyond``. Effect, interval and p are missing where nothing can be said.
    """

    table: pd.DataFrame
    scans: int
    period: str
    limits: Limits

    @property
    def beyond(self) -> list[str]:
        """The properties beyond their limits."""
        return [*self.table.loc[self.table["beyond"], "property"]]

    def sentences(self) -> list[str]:
        """What was found, in words."""
        judged = self.table["p"].notna()
        compared = f"{int(judged.sum())} of {len(self.table)} properties compared"
        beyond = f"{len(self.beyond)} beyond the limit{': ' if self.beyond else ''}{', '.join(self.beyond)}"
        said = [f"{counted(self.scans, 'scan')} ({self.period}): {compared}, {beyond}."]
        if rest := self.table.loc[~judged, "property"].tolist():
            said.append(
                f"Nothing can be said of {few(rest)}: it takes {LEAST} scans with a value now, and as many to "
                "compare them with (against=2026-07-01..2026-10-01 takes those of another time)."
            )
        return said

    def shown(self) -> Table:
        """The table for people, what is beyond its limit first."""
        lines = self.table.sort_values("beyond", ascending=False, kind="stable")
        heads = ["Property", "Before", "Now", "Scans", "Effect", f"{percent(LEVEL)} interval", "p", "Limit", ""]
        groups = self.table[self.table["reference"] != ""].groupby("reference", sort=False)["property"]
        before = "; ".join(f"{of} ({len(names)} properties)" for of, names in groups) or "nothing"
        note = (
            "Medians; of unusual and failed scans the share. Effect: Cliff's delta, −1 (all lower than before) to 1 "
            "(all higher); of shares the difference. p: Wilcoxon–Mann–Whitney, of shares Fisher, after Holm. Beyond: "
            f"an effect larger than the limit, and p at most {self.limits.alpha:g}. Before: {before}."
        )
        return Table("Drift", heads, {"": [self._cells(line) for _, line in lines.iterrows()]}, note)

    def _cells(self, line: Row) -> list[Cell]:
        name, size = line["property"], f"{line['scans_before']} / {line['scans']}"
        known = [Cell(name), *(Cell(_number(line[when])) for when in ("before", "now")), Cell(size)]
        if pd.isna(line["p"]):
            return [*known, *[Cell("–")] * 4, Cell("too few")]
        effect, low, high = (f"{line[end]:+.2f}".replace("-", "−") for end in FOUND[:3])
        tests = [Cell(effect), Cell(f"[{low}, {high}]"), Cell(spelled_p(line["p_holm"]))]
        beyond = bool(line["beyond"])
        return [*known, *tests, Cell(f"{self.limits.of(name):g}"), Cell("beyond" if beyond else "", bold=beyond)]


def drift(now: pd.DataFrame, references: Sequence[tuple[str, pd.DataFrame]], period: Period, limits: Limits) -> Drift:
    """Holds the scans of one period beside others.

    Args:
        now: of ``seg.deploy.arrivals``.
        references: names and tables to compare with: each property with the first that has enough scans with it.
        period: that ``now`` is of.
        limits: what is beyond.
    """
    names = [name for name in now if name != TIME]
    table = pd.DataFrame([_line(name, now[name].dropna(), references) for name in names])
    judged = table["p"].notna()
    table["p_holm"] = nan
    table.loc[judged, "p_holm"] = holm(table.loc[judged, "p"].to_numpy(float))
    table["beyond"] = (table["p_holm"] <= limits.alpha) & (table["effect"].abs() > table["property"].map(limits.of))
    return Drift(table, len(now), str(period), limits)


def figure(found: Drift) -> Figure:
    """Each effect with its interval, within or beyond the band of its limits: beyond, it is an orange square."""
    lines = found.table[found.table["p"].notna()].reset_index(drop=True)
    rows = max(len(lines), 3)
    sheet = new_figure(8.0, 1.4 + ROW_INCHES * rows)
    panel = sheet.subplots()
    for place, (_, line) in enumerate(lines.iterrows()):
        color, shape = (ORANGE, "s") if line["beyond"] else (GREY, "o")
        limit = found.limits.of(line["property"])
        panel.barh(place, 2 * limit, left=-limit, height=1.0, color=SAND, zorder=0)
        panel.plot([line["ci_low"], line["ci_high"]], [place, place], color=color, lw=1.8, zorder=2)
        panel.plot(line["effect"], place, shape, color=color, ms=6, zorder=3)
    texts = [f"{line['property']}  {_number(line['before'])} → {_number(line['now'])}" for _, line in lines.iterrows()]
    panel.set_yticks(range(len(lines)), texts, fontsize=8, color=INK, parse_math=False)
    panel.set_ylim(rows - 0.5, -0.5)
    panel.set_xlim(-1.05, 1.05)
    panel.axvline(0, color=INK, lw=0.8, zorder=1)
    panel.set_xlabel(f"← lower      effect, {percent(LEVEL)} interval, and its limit (band)      higher →", fontsize=9)
    plain(panel, axis="x")
    panel.tick_params(axis="y", length=0)
    beyond = f"{len(found.beyond)} beyond the limit" if found.beyond else "none beyond the limit"
    panel.set_title(f"{counted(found.scans, 'scan')} ({found.period}): {beyond}", fontsize=10, loc="left")
    return sheet


def by_week(arrivals: pd.DataFrame) -> dict[int, dict[str, float]]:
    """Of each week, named by its Monday (20261005), how many scans came in, their medians and their shares."""
    names = [name for name in arrivals if name != TIME]
    days = arrivals[TIME].dt.floor("D")
    found = {}
    for monday, part in arrivals.groupby(days - pd.to_timedelta(days.dt.day_of_week, unit="D")):
        shares = part[names].mean()
        middles = part[names].median().where(~shares.index.isin(SHARES), shares).dropna()
        found[int(f"{monday:%Y%m%d}")] = {"scans": float(len(part)), **middles.add_prefix("week/").to_dict()}
    return found


def _line(name: str, now: "pd.Series[float]", references: Sequence[tuple[str, pd.DataFrame]]) -> dict[str, object]:
    known = [(of, table[name].dropna()) for of, table in references if name in table]
    of, before = next((one for one in known if len(one[1]) >= LEAST), known[0] if known else ("", now[:0]))
    middle = pd.Series.mean if name in SHARES else pd.Series.median
    line = {"property": name, "reference": of, "scans_before": len(before), "scans": len(now)}
    line |= {"before": middle(before), "now": middle(now)}
    if min(len(before), len(now)) < LEAST:
        return line | dict.fromkeys(FOUND, nan)
    compared = shift_of_shares if name in SHARES else shift
    return line | dict(zip(FOUND, compared(now.to_numpy(float), before.to_numpy(float)), strict=True))


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3g}"
