"""The answer comes first, in words, and says what is excluded; methods and checklist tell what the record holds."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from benchmarks.statistics import study
from seg.study.analysis import Analysis, analyse
from seg.study.answer import amount, answer, remark
from seg.study.methods import SOURCES, Facts, checklist, glossary, methods
from seg.study.sentences import about, percent
from seg.study.tables import markdown

CALM = {"patients": 60, "spread": 0.004, "rest": 0.004, "seed_spread": 0.0005}
SCORES = study({"base": 0.0, "se": 0.03, "copy": 0.0, "less": -0.03}, **CALM)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(SCORES, baseline="base", against=["baseline"], margin=0.005, draws=2000)


def test_each_arm_gets_a_sentence_with_its_size_in_points(analysis: Analysis) -> None:
    better, same, worse = answer(analysis)
    lines = analysis.comparisons[analysis.comparisons["primary"]].set_index("arm")
    assert better.startswith("se: better by ")
    points, least, most = map(float, re.findall(r"([0-9.]+) points", better))
    assert least <= points <= most
    assert points == pytest.approx(100 * lines.loc["se", "difference"], abs=0.1)
    assert same == "copy: no difference that matters; surely less than 0.5 points of Dice either way."
    assert worse.startswith("less: worse by ")
    assert markdown(analysis).startswith(better)


@pytest.mark.parametrize(("metric", "sign"), [("dice", 1), ("hd95_mm", -1)])
def test_without_an_answer_it_says_what_is_excluded(metric: str, sign: int) -> None:
    found = analyse(study({"base": 0.0, "se": 0.0}, patients=30), baseline="base", primary=metric, draws=2000)
    (told,) = answer(found)
    (line,) = found.comparisons[found.comparisons["primary"]].to_dict("records")
    low, high = sorted((line["ci_low"] * sign, line["ci_high"] * sign))
    name = "Dice" if metric == "dice" else "HD95"
    expected = f"a gain in {name} above {amount(high, metric)} is excluded, a loss above {amount(-low, metric)}, too."
    assert told == f"se: no answer yet; {expected}"
    (told,) = answer(replace(found, meta=replace(found.meta, margins={metric: abs(high) + 0.001})))
    assert told == f"se: no gain that matters; {expected}", "for one as large as the margin is excluded"


def test_arms_of_which_the_same_must_be_said_share_a_sentence() -> None:
    one = SCORES[SCORES["seed"] == 0]
    assert answer(analyse(one, baseline="base", draws=400)) == [
        "se, copy, less: no answer; one training of an arm cannot tell it from luck."
    ]
    failed = SCORES["arm"].isin(["se", "less"]) & (SCORES["seed"] == 1)
    found = analyse(SCORES.assign(dice=SCORES["dice"].where(~failed, 0.0)), baseline="base", draws=2000)
    assert "se, less: no answer; some trainings ended far from the others: inspect them first." in answer(found)
    assert answer(analyse(SCORES[SCORES["arm"] == "se"], baseline="se", draws=400)) == [
        "There is nothing to compare yet."
    ]


def test_sizes_are_rounded_up_so_that_what_is_excluded_is() -> None:
    assert amount(0.0159, "dice") == "1.6 points"
    assert amount(0.01, "nsd") == "1 point"
    assert amount(0.0101, "dice") == "1.1 points"
    assert amount(0.301, "hd95_mm") == "0.31 mm"


def test_what_is_found_at_least_is_rounded_down(analysis: Analysis) -> None:
    assert (amount(0.00002, "dice", up=False), amount(0.00402, "dice", up=False)) == ("0.002 points", "0.4 points")
    assert (amount(0.00003, "hd95_mm", up=False), amount(0.0, "dice", up=False)) == ("0.00003 mm", "0 points")
    assert (amount(0.019, "hd95_mm", up=False), amount(0.00074, "dice", up=False)) == ("0.01 mm", "0.07 points")
    lines = analysis.comparisons[analysis.comparisons["primary"]].set_index("arm")
    least, most = map(float, re.findall(r"between ([0-9.]+) points? and ([0-9.]+)", answer(analysis)[0])[0])
    assert least <= 100 * lines.loc["se", "ci_low"] < 100 * lines.loc["se", "ci_high"] <= most


def test_no_size_is_a_power_of_ten() -> None:
    far = SCORES.assign(hd95_mm=SCORES["hd95_mm"] + 1234.0 * (SCORES["arm"] == "se"))
    told = answer(analyse(far, baseline="base", primary="hd95_mm", draws=400))[0]
    assert re.fullmatch(r"se: worse by 1200 mm of HD95 \(between 1\d{3}\.?\d* mm and 1\d{3}\.?\d* mm\)\.", told), told
    near = SCORES.assign(dice=0.9 + SCORES["dice"].rank() * 1e-9 + 4e-7 * (SCORES["arm"] == "se"))
    assert "better by 0.00" in answer(analyse(near, baseline="base", draws=400))[0]


@pytest.mark.parametrize(("patients", "words"), [(5, "5 patients are too few for the rank test"), (60, "inspect them")])
def test_few_patients_who_all_gain_are_no_failures(patients: int, words: str) -> None:
    scores = study({"base": 0.0, "se": 0.06}, **CALM | {"patients": patients, "spread": 0.002})
    if patients > 5:  # a few gain much, the others lose a little
        few = (scores["arm"] == "se") & (scores["patient"] > "p004")
        scores.loc[few, "dice"] -= 0.0605
        scores.loc[(scores["arm"] == "se") & ~few, "dice"] += 0.05
    told = " ".join(analyse(scores, baseline="base", draws=2000).sentences())
    assert words in told


def test_nearly_all_is_not_all() -> None:
    assert [about(share) for share in (0.95, 0.975, 0.996, 0.9999, 1)] == ["95 %", "98 %", "99.6 %", "99.9 %", "100 %"]


def test_a_level_is_quoted_as_it_is() -> None:
    assert [percent(level) for level in (0.05, 0.025, 1 - 0.025, 1 - 0.07)] == ["5 %", "2.5 %", "97.5 %", "93 %"]
    told = analyse(SCORES, baseline="base", alpha=0.025, draws=2000).sentences()
    assert "one family at 2.5 % (Holm)" in told[0]
    assert "(97.5 % interval" in told[1]


def test_a_case_without_the_judged_class_has_perhaps_another() -> None:
    other = SCORES.assign(**{"class": "organ"})
    found = analyse(
        pd.concat([SCORES[SCORES["case"] != "case_000"], other]), baseline="base", classes=["structure"], draws=400
    )
    told = [sentence for sentence in found.sentences() if sentence.startswith("Not scored")]
    assert told == ["Not scored, for there is none of structure in the reference nor in any prediction: 1 more case."]


def test_a_difference_below_what_half_a_voxel_costs_is_marked_and_the_mark_is_explained_once(
    analysis: Analysis,
) -> None:
    strict = replace(analysis, meta=replace(analysis.meta, jitter=0.08))
    assert answer(strict)[0].endswith("points; within half a voxel).")
    words = " ".join(strict.sentences())
    assert words.count(" Within half a voxel. ") == 2
    assert (
        words.count("Ceiling: half a voxel of doubt about the surface of these labels costs 0.080 of Dice; above") == 1
    )
    (told,) = remark(strict)
    assert told in words
    assert "is not meaningful in a single patient" in told
    assert markdown(strict).count(told) == 2, "once below the answer, once among the findings"
    lenient = replace(analysis, meta=replace(analysis.meta, jitter=0.001))
    assert "Within half a voxel." not in " ".join(lenient.sentences())
    assert remark(lenient) == []
    assert "half a voxel" not in " ".join([*answer(analysis), *analysis.sentences()])


def test_of_one_training_an_arm_the_methods_claim_nothing(analysis: Analysis) -> None:
    one = replace(analysis, meta=replace(analysis.meta, seeds=dict.fromkeys(analysis.meta.seeds, 1)))
    text, _ = methods(one, Facts())
    assert "No difference could be claimed" in text
    assert "Student" not in text


def test_methods_cite_what_they_use_in_order(analysis: Analysis) -> None:
    text, references = methods(analysis, Facts(dataset="hippocampus", budget="120 steps", code="commit ab12"))
    assert [int(n) for n in re.findall(r"\[(\d+)\]", text)] == list(range(1, len(references) + 1))
    for words in ("4 configurations on hippocampus", "3 seeds in 5 folds for 120 steps", "60 cases of 60 patients"):
        assert words in text
    assert "±0.005" in text
    assert any(SOURCES["tost"] in one for one in references)
    unknown, fewer = methods(replace(analysis, meta=replace(analysis.meta, margins={})), Facts())
    assert len(fewer) == len(references) - 1
    assert "  " not in unknown
    assert "equivalent" not in unknown


def test_the_checklist_says_what_the_record_does_not_tell(analysis: Analysis) -> None:
    def told(facts: Facts) -> dict[str, str]:
        return {row[0].text: row[1].text for rows in checklist(analysis, facts).blocks.values() for row in rows}

    assert told(Facts())["7 Data sources"] == "the record does not tell"
    known = told(Facts(dataset="hippocampus", version="abcd", split="100 training, 60 test cases; ef01"))
    assert known["7 Data sources"] == "hippocampus version abcd"
    assert known["20 Disjoint at which level"] == "patients"
    assert known["28 Performance metrics"] == "Dice, HD95"


def test_every_column_of_the_tables_has_a_sentence(analysis: Analysis) -> None:
    words = " ".join(row[0].text for row in glossary(analysis).blocks[""])
    heads = re.search(r"### Comparisons\n\n(.*)\n", markdown(analysis))
    assert heads
    for head in ("Difference", "p mean", "p ranks", "Effect", "W/T/L", "Visible", "Verdict", "False claim"):
        assert head in heads[1]
        assert head in words
