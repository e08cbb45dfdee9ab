"""What a table of scores must hold, and how it becomes one value a patient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from benchmarks.statistics import study
from seg.errors import ConfigError, DataError
from seg.study import analyse, read_scores
from seg.study.scores import Values, patient_values

GOOD = study({"base": 0.0, "se": 0.01}, patients=6, seeds=2, folds=2, classes=("a", "b"))
Change = Callable[[pd.DataFrame], pd.DataFrame]


def values(scores: pd.DataFrame, **options: Any) -> Values:
    return patient_values(scores, **({"arms": None, "metrics": ["dice", "hd95_mm"]} | options))


def without(scores: pd.DataFrame, arm: str, seed: int, fold: int | None = None) -> pd.DataFrame:
    gone = (scores["arm"] == arm) & (scores["seed"] == seed)
    return scores[~(gone & (scores["fold"] == fold) if fold is not None else gone)]


def test_classes_are_averaged_in_a_case_then_cases_in_a_patient() -> None:
    rows = [  # patient p has two cases, q one
        ("p", "1", "a", 0.2), ("p", "1", "b", 0.4), ("p", "2", "a", 0.8), ("p", "2", "b", 1.0),
        ("q", "3", "a", 0.5), ("q", "3", "b", 0.7),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["patient", "case", "class", "dice"])
    scores = pd.concat([table.assign(arm=arm, seed=seed, fold=0) for arm in "xy" for seed in (0, 1)])
    found = values(scores, metrics=["dice"])
    assert found.patients == ("p", "q")
    assert found.by_metric["dice"][0] == pytest.approx(np.array([[0.6, 0.6], [0.6, 0.6]]))
    lopsided = scores.assign(dice=scores["dice"].where(scores["case"] != "3", 0.1))
    assert values(lopsided, metrics=["dice"]).by_metric["dice"][1][0] == pytest.approx([0.6, 0.1])
    assert (found.cases, found.folds, found.seeds) == (3, 1, {"x": 2, "y": 2})


def test_patients_stand_in_one_order_whatever_the_order_of_rows() -> None:
    shuffled = GOOD.sample(frac=1, random_state=0)
    for before, after in zip(
        values(GOOD).by_metric["dice"], values(shuffled, arms=["base", "se"]).by_metric["dice"], strict=True
    ):
        assert after == pytest.approx(before)


def test_a_csv_gives_the_same_values_and_keeps_names(tmp_path: Path) -> None:
    odd = GOOD.replace({"arm": {"base": "none", "se": "007"}, "case": {"case_000": "NA"}})
    odd.assign(run_id="8086e572").to_csv(tmp_path / "scores.csv", index=False)
    read = read_scores(tmp_path / "scores.csv")
    assert set(read["arm"]) == {"none", "007"}
    assert "NA" in set(read["case"])
    assert set(read["run_id"]) == {"8086e572"}
    assert values(read).by_metric["dice"][1] == pytest.approx(values(GOOD).by_metric["dice"][1])


@pytest.mark.parametrize("content", [None, "", 'a,b\n"1'])
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"scores\.csv is not a readable CSV"):
        read_scores(path)


@pytest.mark.parametrize("cell", ["0,85", "high", "0.8.5"])
def test_a_cell_that_holds_no_number_is_named(tmp_path: Path, cell: str) -> None:
    table = GOOD.astype({"dice": object})
    table.loc[3, "dice"] = cell
    table.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(DataError, match=rf"scores\.csv: dice is '{cell}' in row 4\. Write a number"):
        read_scores(tmp_path / "scores.csv")


def at(row: int, **change: object) -> Change:
    """Changes cells of one row."""

    def changed(scores: pd.DataFrame) -> pd.DataFrame:
        scores = scores.astype({name: object for name in change if scores[name].dtype.kind in "if"})
        for name, value in change.items():
            scores.loc[scores.index[row], name] = value
        return scores

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns=["patient", "dice"]), "no column patient, dice"),
        (lambda s: s.iloc[:0], "no rows"),
        (at(3, case=None), "column case is empty in 1 rows"),
        (at(3, patient=""), "column patient is empty in 1 rows"),
        (at(3, hd95_mm=np.nan), "hd95_mm is not a finite number in 1 rows, first in arm base, case case_001, class b"),
        (at(3, dice=np.inf), "dice is not a finite number"),
        (lambda s: s.assign(dice="high"), "dice is not a finite number in 48 rows"),
        (at(3, dice="0,8", hd95_mm="x"), "1 rows have text for scores, as if their class were nowhere"),
        (
            lambda s: s.assign(dice=100 * s["dice"]),
            "in the first of 48 rows; it must be a number from 0 to 1. Is it in",
        ),
        (at(3, hd95_mm=-1), "hd95_mm is -1 in the first of 1 rows; it must be a finite number, 0 or more"),
        (lambda s: pd.concat([s, s.iloc[[4]]]), "case case_002 .fold 0.; within a seed each case is tested once"),
        (lambda s: pd.concat([s, s.iloc[[4]].assign(fold=1)]), "fold 0, 1"),
        (lambda s: s.assign(patient=["p"] * 3 + list(s["patient"][3:])), "cases of more than one patient"),
        (lambda s: s.assign(fold=np.where(s["arm"] == "se", 1 - s["fold"], s["fold"])), "different folds in different"),
        (lambda s: s.assign(patient="p"), "share 1 patient"),
        (lambda s: without(s, "se", 1, 0), "arm se, seed 1: 3 cases missing .case_000, case_002, case_004.*common"),
        (lambda s: s.drop(index=s.index[5]), "arm base, seed 0: 1 cases missing .case_002"),  # one class of it
    ],
)
def test_scores_that_cannot_be_compared_are_refused(change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(change(GOOD.copy()))


def test_nsd_at_two_tolerances_is_not_compared_as_one_metric() -> None:
    alike = GOOD.assign(nsd=0.9, nsd_tolerance_mm=1.0)
    other = alike.assign(nsd_tolerance_mm=np.where(alike["arm"] == "se", 2.0, 1.0))
    assert values(alike, metrics=["dice", "nsd"]).arms == ("base", "se")
    with pytest.raises(DataError, match=r"nsd was scored at several tolerances \(1, 2; nsd_tolerance_mm\)"):
        values(other, metrics=["dice", "nsd"])
    assert values(other, metrics=["dice"]).arms == ("base", "se"), "which no tolerance enters"
    found = analyse(other, baseline="base", draws=400)
    assert found.meta.metrics == ("dice", "hd95_mm")
    assert "NSD is left out: its tolerances (1, 2) are not the same in all runs." in found.sentences()
    assert "nsd" in analyse(alike, baseline="base", draws=400).meta.metrics


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(DataError, match=r"2 faults:(?s:.*)is not a finite number(?s:.*)more than one patient"):
        values(at(9, patient="p000")(at(3, dice=np.nan)(GOOD.copy())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": ["base", "cbam"]}, "no scores of arms cbam; there are base, se"),
        ({"arms": ["base", "se", "se"]}, "name each arm once"),
        ({"metrics": ["dice", "dise"]}, "unknown metrics: dise"),
        ({"incomplete": "drop"}, "give refuse or common"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        values(GOOD, **options)


def test_half_a_study_is_compared_on_what_all_arms_share_and_says_so() -> None:
    unfinished_seed = values(without(GOOD, "se", 1, 0), incomplete="common")
    assert unfinished_seed.seeds == {"base": 2, "se": 1}
    assert len(unfinished_seed.patients) == 6
    assert unfinished_seed.left_out == ("arm se, seed 1 (unfinished)",)

    first_fold_only = values(without(without(GOOD, "se", 1), "se", 0, 1), incomplete="common")
    assert first_fold_only.seeds == {"base": 2, "se": 1}
    assert first_fold_only.patients == ("p000", "p002", "p004")
    assert first_fold_only.left_out == ("3 of 6 cases, which not every arm has scored yet",)

    assert values(GOOD, incomplete="common").left_out == ()


def test_half_a_study_without_a_shared_case_is_refused() -> None:
    apart = GOOD[(GOOD["arm"] == "base") == (GOOD["fold"] == 0)]
    with pytest.raises(DataError, match="finish a fold in every arm"):
        values(apart, incomplete="common")


def test_failures_are_counted_over_the_rows_that_count() -> None:
    counted = GOOD.assign(missed=(GOOD["class"] == "a").astype(int))
    found = values(counted, arms=["se", "base"]).failures
    assert found.index.tolist() == ["se", "base"]
    assert found["missed"].tolist() == [12, 12]
    assert found["structures"].tolist() == [24, 24]
    half = values(without(without(counted, "se", 1), "se", 0, 1), incomplete="common").failures
    assert half["missed"].tolist() == [6, 3]
    assert "false" not in values(GOOD.drop(columns="false")).failures


# A class that a case has in neither the reference nor a prediction


Kind = Literal["found", "missed", "false", "neither"]
WRITTEN = {"found": (0.8, 2.0, 0, 0), "missed": (0.0, 60.0, 1, 0), "false": (0.0, 60.0, 0, 1)}
WRITTEN |= {"neither": (np.nan, np.nan, 0, 0)}


def told(kinds: dict[str, dict[str, list[Kind]]]) -> pd.DataFrame:
    """Scores by arm and class, a case after the other, each of a patient of its own; two seeds alike."""
    rows = [
        (arm, seed, 0, f"c{n}", f"p{n}", name, *WRITTEN[kind])
        for arm, by_class in kinds.items()
        for seed in range(2)
        for name, cases in by_class.items()
        for n, kind in enumerate(cases)
    ]
    columns = ["arm", "seed", "fold", "case", "patient", "class", "dice", "hd95_mm", "missed", "false"]
    return pd.DataFrame(rows, columns=columns)


def means(found: Values, metric: str = "dice") -> list[list[float]]:
    """Of each arm, by patient."""
    return [arm.mean(0).round(6).tolist() for arm in found.by_metric[metric]]


def test_a_class_that_is_nowhere_is_not_scored_and_one_that_an_arm_makes_up_is() -> None:
    usual: dict[str, list[Kind]] = {"organ": ["found", "found", "found"]}
    good = usual | {"tumour": ["found", "neither", "neither"]}
    bad = usual | {"tumour": ["missed", "neither", "false"]}
    found = values(told({"good": good, "bad": bad}))
    assert means(found) == [[0.8, 0.8, 0.9], [0.4, 0.8, 0.4]], "right to leave it empty: 1; nowhere: not scored"
    assert means(found, "hd95_mm") == [[2.0, 2.0, 1.0], [31.0, 2.0, 31.0]]
    assert means(values(told({"good": good}))) == [[0.8, 0.8, 0.8]], "no other arm, nothing made up"
    assert found.failures.to_dict("list") == {"missed": [0, 2], "false": [0, 2], "structures": [8, 8]}
    tumour = found.classes[found.classes["class"] == "tumour"].set_index("arm")
    assert tumour[["cases", "present", "missed", "false"]].to_numpy().tolist() == [[2, 1, 0, 0], [2, 1, 2, 2]]
    assert tumour["dice"].tolist() == pytest.approx([0.9, 0.0])


def test_absent_classes_cannot_lift_a_mean() -> None:
    """78 of 117 classes are in no case: an empty prediction has nothing right."""
    absent: dict[str, list[Kind]] = {f"absent {n}": ["neither"] * 3 for n in range(78)}
    missed: dict[str, list[Kind]] = {f"organ {n}": ["missed"] * 3 for n in range(39)}
    assert means(values(told({"empty": absent | missed}))) == [[0.0, 0.0, 0.0]]


def test_a_case_without_any_structure_is_not_scored_and_counted() -> None:
    kinds: dict[str, list[Kind]] = {"tumour": ["found", "neither", "found"]}
    found = values(told({"a": kinds, "b": kinds}))
    assert (found.patients, found.cases, found.unscored) == (("p0", "p2"), 2, 1)
    with pytest.raises(DataError, match="share 1 patient"):
        values(told({"a": {"tumour": ["found", "neither", "neither"]}}))


def test_a_right_voxel_for_voxel_prediction_counts() -> None:
    scores = told({"a": {"tumour": ["found"] * 3}, "b": {"tumour": ["found"] * 3}})
    perfect = (scores["arm"] == "b") & (scores["case"] == "c1")
    scores.loc[perfect, ["dice", "hd95_mm"]] = [1.0, 0.0]
    found = values(scores)
    assert means(found) == [[0.8, 0.8, 0.8], [0.8, 1.0, 0.8]]
    assert found.classes["present"].tolist() == [3, 3]
    everything = scores.assign(dice=1.0, hd95_mm=0.0)
    assert means(values(everything)) == [[1.0] * 3] * 2, "a table with nothing but right predictions"
    unsure = scores.assign(dice=scores["dice"].where(~scores["case"].eq("c1"), 1.0), hd95_mm=0.0).drop(columns="false")
    assert len(values(unsure).patients) == 3, "without the counts nothing says that the class is nowhere"


@pytest.mark.parametrize("count", ["missed", "false"])
def test_a_score_may_be_empty_only_where_nothing_is_missed_or_false(count: str) -> None:
    scores = told({"a": {"tumour": ["found", "neither", "found"]}}).assign(**{count: 1})
    with pytest.raises(DataError, match="dice is not a finite number in 2 rows"):
        values(scores)


def test_seeds_are_in_the_order_of_their_numbers() -> None:
    scores = pd.concat([GOOD[GOOD["seed"] == 0].assign(seed=seed, dice=seed / 100) for seed in (10, 2, 1)])
    assert values(scores).by_metric["dice"][0][:, 0].tolist() == pytest.approx([0.01, 0.02, 0.1])
