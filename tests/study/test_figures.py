"""Figures show the analysis' own numbers, at the right place and the right way round, for any number of arms."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from benchmarks.statistics import study
from seg.study.analysis import Analysis, analyse
from seg.study.figures import COLORS, differences, forest, write_figures

LONG = "unetpp_{}_with_deep_supervision_and_a_schedule_of_many_words"
GAINS = {"base": 0.0, "se": 0.0, "cbam": 0.03, "worse": -0.03}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    scores = study(GAINS, patients=30, spread=0.005, rest=0.005, seed_spread=0.001)
    return analyse(scores, baseline="base", margin=0.01, draws=1000)


def points(panel: Axes) -> list[tuple[float, float, str]]:
    """Place, height and colour of single points: the means."""
    lines = [line for line in panel.lines if len(line.get_xdata()) == 1 and line.get_marker() not in ("<", ">")]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0]), str(line.get_color())) for line in lines]


def test_files_are_whole_pictures(analysis: Analysis, tmp_path: Path) -> None:
    paths = write_figures(analysis, tmp_path / "figures")
    assert [path.name for path in paths] == ["forest.png", "forest.svg", "differences.png", "differences.svg"]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 300
                assert np.asarray(picture.convert("L")).std() > 5
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_same_analysis_gives_the_same_bytes(analysis: Analysis, tmp_path: Path) -> None:
    first, second = (write_figures(analysis, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_forest_puts_every_mean_and_interval_at_its_place(analysis: Analysis) -> None:
    panels = forest(analysis).axes
    for panel, metric in zip(panels, ("dice", "hd95_mm"), strict=True):
        table = analysis.comparisons[analysis.comparisons["metric"] == metric]
        against_base = table["kind"].str.contains("baseline")
        ordered = [*table[against_base].itertuples(), *table[~against_base].itertuples()]
        found = points(panel)
        assert [x for x, _, _ in found] == pytest.approx([line.difference for line in ordered])
        assert [color for *_, color in found] == [COLORS[line.verdict] for line in ordered]
        heights = [y for _, y, _ in found]
        assert heights == sorted(heights)  # the axis runs downwards
        ends = [tuple(line.get_xdata()) for line in panel.lines if len(line.get_xdata()) == 2][1:]  # but the line at 0
        assert np.array(ends) == pytest.approx(np.array([(line.ci_low, line.ci_high) for line in ordered]))


def test_right_is_always_better(analysis: Analysis) -> None:
    dice, hd95 = forest(analysis).axes
    assert not dice.xaxis_inverted()
    assert hd95.xaxis_inverted()
    by_hd95 = analyse(study(GAINS, patients=30), baseline="base", primary="hd95_mm", draws=400)
    assert differences(by_hd95).axes[0].xaxis_inverted()


def test_differences_shows_every_patient_once(analysis: Analysis) -> None:
    (panel,) = differences(analysis).axes
    strips = [line for line in panel.lines if line.get_marker() == "o" and line.get_alpha()]
    edges = [line for line in panel.lines if line.get_marker() in ("<", ">")]
    assert sum(len(line.get_xdata()) for line in strips + edges) == 3 * 30
    values = analysis.patients[analysis.patients["metric"] == "dice"].pivot(
        index="arm", columns="patient", values="value"
    )
    low, high = sorted(panel.get_xlim())
    expected = (values.loc["cbam"] - values.loc["base"]).to_numpy()
    assert sorted(strips[1].get_xdata()) == pytest.approx(sorted(expected[(expected > low) & (expected < high)]))


@pytest.mark.parametrize(("primary", "side"), [("dice", "<"), ("hd95_mm", ">")])
def test_a_patient_beyond_the_frame_stands_at_its_edge(primary: str, side: str) -> None:
    scores = study({"base": 0.0, "se": 0.0}, patients=300)
    scores.loc[(scores["case"] == "case_007") & (scores["arm"] == "se"), "dice"] = 0.0
    scores.loc[(scores["case"] == "case_007") & (scores["arm"] == "base"), "hd95_mm"] = 90.0
    found = analyse(scores, baseline="base", primary=primary, draws=400)
    (panel,) = differences(found).axes
    (outside,) = [line for line in panel.lines if line.get_marker() == side and len(line.get_xdata())]
    assert panel.transData.transform((outside.get_xdata()[0], 1))[0] == pytest.approx(
        panel.transAxes.transform((0 if side == "<" else 1, 0))[0]
    )


@pytest.mark.parametrize("names", [["a", "b"], ["base", "$x_1$ <b>&"], [LONG.format(n) for n in range(12)]], ids=len)
def test_every_text_stays_within_the_picture_and_names_apart(names: list[str]) -> None:
    found = analyse(study(dict.fromkeys(names, 0.0), patients=20), baseline=names[0], margin=0.01, draws=400)
    for figure in (forest(found), differences(found)):
        figure.draw_without_rendering()
        box = figure.get_tightbbox()  # of all that is drawn, in inches
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(labels))
        shown = "".join(label.get_text().replace("\n", "") for label in figure.axes[0].get_yticklabels())
        assert names[1] in shown  # whole, and not read as mathematics
        assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def test_an_arm_of_abnormal_seed_spread_does_not_flatten_the_others() -> None:
    scores = study(GAINS, patients=30, spread=0.005, rest=0.005, seed_spread=0.001)
    failed = (scores["arm"] == "cbam") & (scores["seed"] == 1)
    found = analyse(scores.assign(dice=scores["dice"].where(~failed, 0.0)), baseline="base", draws=1000)
    line = found.comparisons.query("metric == 'dice' and arm == 'cbam' and against == 'base'").iloc[0]
    for figure in (forest(found), differences(found)):
        panel = figure.axes[0]
        low, high = panel.get_xlim()
        assert line["ci_low"] < low < -0.02 < 0 < high < line["ci_high"]
        edges = {float(one.get_xdata()[0]) for one in panel.lines if one.get_marker() in "<>" and len(one.get_xdata())}
        assert low in edges, "an arrow points to what lies beyond"


def test_nothing_to_compare_gives_no_figure(tmp_path: Path) -> None:
    alone = analyse(study({"base": 0.0}, patients=10), baseline="base", draws=400)
    assert write_figures(alone, tmp_path) == []


def test_without_the_baseline_the_previous_arms_are_shown() -> None:
    found = analyse(study(GAINS, patients=20), baseline="base", against=["previous"], draws=400)
    assert len(points(forest(found).axes[0])) == 3
    assert len(points(differences(found).axes[0])) == 3
