"""Anchors: a finished tool beside the arms, by plain arithmetic; nothing planned changes; what lacks is refused."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from statistics import NormalDist
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.anchors import KINDS, coverage
from benchmarks.statistics import study
from seg.errors import ConfigError, DataError
from seg.study.analysis import Analysis, analyse
from seg.study.anchors import check_anchors, provenance, read_anchors, with_anchors
from seg.study.answer import answer, beside
from seg.study.figures import forest
from seg.study.tables import markdown, wide

ARMS = ("base", "se")
SCORES = study({"base": 0.0, "se": 0.004}, patients=40, classes=("a", "b"))
SHIPPED = Path(__file__).parents[2] / "experiments/anchors"


def tool(gain: float, *columns: str, patients: int = 45, seed: int = 9) -> str:
    """The text of an anchor on the same cases and five more."""
    rows = study({"x": gain}, patients=patients, seeds=1, classes=("a", "b"), rng=seed)
    return "# Made up.\n#  No licence.\n" + rows[["case", "class", *(columns or ("dice",))]].to_csv(index=False)


def values(frame: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    return frame.groupby(["arm", "seed", "case"])[metric].mean().unstack()


@pytest.fixture(scope="module")
def planned() -> Analysis:
    return analyse(SCORES, baseline="base", margin=0.005, draws=2000)


@pytest.fixture(scope="module")
def found(planned: Analysis) -> Analysis:
    return with_anchors(planned, SCORES, {"nnU-Net": tool(0.05), "other": tool(0.0, "dice", "hd95_mm")}, arms=ARMS)


def test_a_difference_has_the_variance_of_patients_and_of_the_arms_own_seeds_alone(found: Analysis) -> None:
    rows = pd.read_csv(StringIO(tool(0.05)), comment="#")
    anchor = rows.groupby("case")["dice"].mean().loc[SCORES["case"].unique()].to_numpy()
    arms = {arm: values(SCORES).loc[arm].to_numpy() for arm in ARMS}
    own = found.anchors["nnU-Net"].comparisons.set_index(["metric", "arm"])
    larger = max(arms["base"].mean(1).var(ddof=1), np.mean([arm.mean(1).var(ddof=1) for arm in arms.values()]))
    scores = arms["base"]
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    net = max(larger - (rest**2).sum() / (2 * 39) / 40, 0) / 3
    gains = scores.mean(0) - anchor
    line = own.loc[("dice", "base")]
    assert line["difference"] == pytest.approx(gains.mean())
    assert line["standard_error"] == pytest.approx(np.sqrt(gains.var(ddof=1) / 40 + net))
    assert line["p_wilcoxon"] == pytest.approx(stats.wilcoxon(gains).pvalue)
    assert (line["verdict"], line["against"]) == ("worse", "nnU-Net")
    mean = found.anchors["nnU-Net"].arms.set_index(["metric", "arm"]).loc[("dice", "nnU-Net")]
    half = NormalDist().inv_cdf(0.975) * anchor.std(ddof=1) / np.sqrt(40)
    assert mean["mean"] == pytest.approx(anchor.mean())
    assert (mean["ci_high"] - mean["ci_low"]) / 2 == pytest.approx(half, rel=0.1)


def test_nothing_that_was_planned_changes_and_no_anchor_is_ranked(planned: Analysis, found: Analysis) -> None:
    for name in ("arms", "comparisons", "ranks", "class_comparisons", "subset_comparisons", "patients"):
        pd.testing.assert_frame_equal(getattr(planned, name), getattr(found, name))
    assert planned.meta == found.meta
    assert answer(planned) == answer(found)
    assert [own.meta.family for own in found.anchors.values()] == [2, 2]
    assert not any("nnU-Net" in sentence for sentence in planned.sentences())


def test_tables_figure_and_words_have_each_anchor_and_leave_out_what_it_lacks(found: Analysis) -> None:
    text = markdown(found)
    for words in (
        "| nnU-Net † | 0.9", "one training; its own luck is not in the interval", "base – nnU-Net", "family of its own",
        "Beside nnU-Net, a finished tool (exploratory", "Anchor other: a finished tool",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words
    row = next(line for line in text.splitlines() if line.startswith("| nnU-Net †"))
    assert row.split("|")[3].strip() == "–", "it has no HD95"
    (sentence, _) = beside(found)
    assert "base: worse by " in sentence
    table = wide(found).set_index("arm")
    assert list(table.index) == ["base", "se", "nnU-Net", "other"]
    assert pd.isna(table.loc["nnU-Net", "hd95_mm_mean"])
    assert table.loc["other", "hd95_mm_mean"] > 0
    assert table.loc["se", "dice_nnU-Net_difference"] < 0
    assert forest(found).axes[0].get_xlim()[0] > -0.04, "an anchor far off does not squeeze what was planned"
    drawn = {label.get_text().split("\n")[0] for label in forest(found).axes[0].get_yticklabels()}
    assert {"se – base", "base – nnU-Net", "se – nnU-Net", "base – other"} <= drawn


def test_an_arm_of_one_seed_is_no_finished_tool(planned: Analysis) -> None:
    one = SCORES[SCORES["seed"] == 0]
    own = with_anchors(analyse(one, baseline="base", draws=400), one, {"x": tool(0.05)}, arms=ARMS).anchors["x"]
    assert set(own.comparisons["verdict"]) == {"inconclusive"}


def test_what_an_anchor_lacks_is_refused_and_cases_beyond_the_studys_are_not() -> None:
    short = {"a": tool(0.0, patients=38), "b": tool(0.0, patients=39), "c": tool(0.0)}
    planned = analyse(SCORES, baseline="base", draws=400)
    with pytest.raises(DataError, match=r"(?s)2 faults.*The anchor a, .*4 of the 80 .*: case_038 a.*b, .*2 of the 80"):
        with_anchors(planned, SCORES, short, arms=ARMS)
    with pytest.raises(DataError, match="whose classes are a, b, has no score of 1 of the 1 structures"):
        check_anchors({"a": tool(0.0)}, [("case_000", "tumour")])


def test_a_class_that_a_case_has_in_no_mask_of_the_tool_is_left_empty_or_out() -> None:
    nowhere = (SCORES["case"] == "case_000") & (SCORES["class"] == "b")
    false = nowhere & (SCORES["arm"] == "se") & (SCORES["seed"] == 1)
    scores = SCORES.assign(
        dice=SCORES["dice"].mask(nowhere).mask(false, 0.0),
        hd95_mm=SCORES["hd95_mm"].mask(nowhere).mask(false, 50.0),
        false=false.astype(int),
    )
    planned = analyse(scores, baseline="base", draws=400)
    text = tool(0.05)
    line = next(line for line in text.splitlines() if line.startswith("case_000,b"))
    told = []
    for other in (text.replace(line, "case_000,b,"), text.replace(line + "\n", "")):
        own = with_anchors(planned, scores, {"x": other}, arms=ARMS).anchors["x"]
        told.append(own.comparisons.set_index("arm").loc["base", "difference"])
        counted = own.patients.set_index(["arm", "patient"])["value"]
        first = float(next(line for line in text.splitlines() if line.startswith("case_000,a")).split(",")[2])
        assert counted["x", "p000"] == pytest.approx((first + 1) / 2), "rightly empty: the best there is"
    assert told[0] == told[1]
    present = text.replace("case_000,a", "case_999,a")
    with pytest.raises(DataError, match="1 of the 79 structures that are scored: case_000 a"):
        with_anchors(planned, scores, {"x": present}, arms=ARMS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,dice\na,0.5\n", "has the columns case, dice"),
        ("case,class,hd95_mm\na,b,0.5\n", "dice must be there"),
        ("case,class,dice,dise\na,b,0.5,1\n", "dice, dise"),
        ("case,class,dice\n", "0 lines"),
        ("case,class,dice\na,b,0.5\na,b,0.6\n", "come twice, first a b"),
        ("case,class,dice,nsd\na,b,0.5,\n", "1 lines have scores and lack others, first a b"),
        ("case,class,dice\na,b,89\n", "dice of a b is '89'; it must be a number from 0 to 1"),
        ("case,class,dice\na,b,high\n", "dice of a b is 'high'"),
        ("case,class,dice,hd95_mm\na,b,0.5,inf\n", "hd95_mm of a b is 'inf'; it must be a finite number"),
        ("case,class,dice,hd95_mm\na,b,0.5,-3\n", "hd95_mm of a b is '-3'; it must be a finite number, 0 or more"),
        ("case,class,dice\na,b,0.5,\n", "head has 3 columns, and the line 'a,b,0.5,' has 4"),
        ("case,class,dice\na,b,0.5\na,c\n", "the line 'a,c' has 2"),
        ("case,class,dice,dice\na,b,0.5,0.6\n", "dice, dice, and 1 lines; .* each once"),
        ("case;class;dice\na;b;0.5\n", "columns case;class;dice"),
        ("# only words\n", "it has no columns"),
    ],
)
def test_a_file_that_is_no_anchor_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "anchor.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_anchors({"x": str(tmp_path / "anchor.csv")}, "dice")


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n\r\n")])
def test_a_file_as_other_programs_write_it_is_the_same_anchor(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "anchor.csv"
    path.write_bytes(change("# Made up.\ncase,class,dice\na,b , 0.5\n").encode())
    texts = read_anchors({"x": str(path)}, "dice")
    assert provenance(texts["x"]) == "Made up."
    check_anchors(texts, [("a", "b")])


def test_letters_taken_apart_are_the_same_letters(tmp_path: Path) -> None:
    path = tmp_path / "anchor.csv"
    path.write_text(normalize("NFD", "case,class,dice\nMüller_1,Hüfte,0.5\n"), "utf-8")
    check_anchors(read_anchors({"x": str(path)}, "dice"), [("Müller_1", "Hüfte")])


def test_of_several_looks_an_anchor_is_held_to_the_last_ones_level(planned: Analysis) -> None:
    strict = analyse(SCORES, baseline="base", draws=2000, level=0.001)
    wide, usual = (
        with_anchors(one, SCORES, {"x": tool(0.0)}, arms=ARMS).anchors["x"].comparisons for one in (strict, planned)
    )
    assert (wide["ci_high"] - wide["ci_low"] > 1.2 * (usual["ci_high"] - usual["ci_low"])).all()


def test_the_shipped_anchors_are_whole_and_say_where_they_are_from() -> None:
    for name, mean in (("hippocampus", 0.8904), ("hippocampus_resenc_m", 0.8875)):
        text = read_anchors({"x": str(SHIPPED / f"{name}.csv")}, "dice")["x"]
        assert "BSD licence" in provenance(text)
        table = pd.read_csv(SHIPPED / f"{name}.csv", comment="#")
        assert table["case"].nunique() == 260
        assert table["dice"].mean() == pytest.approx(mean, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_simulated_intervals_hold_the_tool_as_it_is(kind: str) -> None:
    """Of 180 intervals 95 % hold, and 95 % of 60 studies claim nothing; the limits are three standard errors off."""
    held, claimed, _ = coverage(kind, patients=40, seed_sd=0.004, studies=60, draws=400)
    assert held > 0.90
    assert claimed < 0.14
