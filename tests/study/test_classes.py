"""A study is judged by the classes that were named, and shows every class by itself."""

import numpy as np
import pytest

from benchmarks.statistics import study
from seg.errors import ConfigError
from seg.study.analysis import Analysis, analyse
from seg.study.figures import forest
from seg.study.tables import markdown

GAINS = {"base": 0.0, "se": 0.0}
SCORES = study(GAINS, patients=30, classes=("organ", "tumour"), spread=0.004, rest=0.004, seed_spread=0.0005)
TUMOUR = (SCORES["arm"] == "se") & (SCORES["class"] == "tumour")
SCORES["dice"] += 0.02 * TUMOUR - 0.02 * ((SCORES["arm"] == "se") & (SCORES["class"] == "organ"))


@pytest.fixture(scope="module")
def everything() -> Analysis:
    return analyse(SCORES, baseline="base", margin=0.01, draws=1000)


def test_a_gain_that_hides_behind_the_mean_is_seen_in_its_class(everything: Analysis) -> None:
    (mean,) = everything.comparisons.query("metric == 'dice'").to_dict("records")
    assert mean["verdict"] == "equivalent"
    by_class = everything.class_comparisons.query("metric == 'dice'").set_index("class")
    wide = SCORES.groupby(["class", "arm"])["dice"].mean().unstack()
    expected = wide["se"] - wide["base"]
    assert by_class["difference"].to_dict() == pytest.approx(expected.to_dict())
    assert by_class.loc["organ", "ci_high"] < 0 < by_class.loc["tumour", "ci_low"]
    assert "verdict" not in by_class, "exploratory"
    (told,) = [one for one in everything.sentences() if one.startswith("se against base")]
    assert f"By class: organ −{abs(expected['organ']):.4f} (" in told
    assert "exploratory" in everything.sentences()[0]
    assert "by Dice, the mean of all classes organ, tumour" in everything.sentences()[0]
    assert "tumour: present in 30 of 30 cases" in markdown(everything)


def test_it_is_judged_by_the_classes_that_were_named(everything: Analysis) -> None:
    found = analyse(SCORES, baseline="base", margin=0.01, classes=["tumour"], draws=1000)
    (line,) = found.comparisons.query("metric == 'dice'").to_dict("records")
    assert line["verdict"] == "better"
    assert "the class tumour" in found.sentences()[0]
    own = everything.class_comparisons.set_index(["metric", "class"]).loc[("dice", "tumour")]
    assert [line["difference"], line["ci_low"], line["ci_high"]] == pytest.approx(
        [own["difference"], own["ci_low"], own["ci_high"]]
    ), "a class by itself has the same interval whether or not it is judged by"
    assert set(found.arms["structures"]) == {90}, "of the class that counts"
    assert "tumour, judged: " in markdown(found)
    with pytest.raises(ConfigError, match="no scores of classes tumor; there are organ, tumour"):
        analyse(SCORES, baseline="base", classes=["tumor"])


def test_a_class_of_one_patient_has_no_interval() -> None:
    rare = SCORES["class"].eq("tumour") & (SCORES["case"] != "case_003")
    scores = SCORES.assign(**{name: SCORES[name].where(~rare) for name in ("dice", "hd95_mm")})
    found = analyse(scores, baseline="base", draws=400)
    assert set(found.class_comparisons["class"]) == {"organ"}
    assert "– " in markdown(found).split("tumour: present in 1 of 30")[1]


def test_one_class_alone_is_not_told_twice() -> None:
    found = analyse(SCORES[SCORES["class"] == "organ"], baseline="base", draws=400)
    assert found.class_comparisons.empty
    assert "By class" not in " ".join(found.sentences())
    assert len(forest(found).axes[0].get_yticks()) == 1


def test_the_forest_has_each_class_below_its_comparison(everything: Analysis) -> None:
    panel = forest(everything).axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names[0].startswith("se – base")
    assert names[1:] == ["organ", "tumour"]
    points = [line for line in panel.lines if len(line.get_xdata()) == 1]
    table = everything.class_comparisons.query("metric == 'dice'")
    expected = [everything.comparisons["difference"].iloc[0], *table["difference"]]
    assert [float(point.get_xdata()[0]) for point in points] == pytest.approx(expected)


def test_of_many_classes_sentence_and_forest_stay_short() -> None:
    many = study(GAINS, patients=12, seeds=2, classes=tuple(f"class_{n:02d}" for n in range(9)))
    found = analyse(many, baseline="base", draws=400)
    (told,) = [one for one in found.sentences() if one.startswith("se against base")]
    assert told.count("class_") == 2
    gains = found.class_comparisons.query("metric == 'dice'").set_index("class")["difference"]
    assert f"Most and least by class: {gains.idxmax()} " in told
    assert len(forest(found).axes[0].get_yticks()) == 1
    assert gains.idxmin() in markdown(found)


def test_another_metric_can_be_the_primary_one() -> None:
    scores = SCORES.assign(nsd=np.clip(SCORES["dice"] + 0.1, 0, 1))
    found = analyse(scores, baseline="base", primary="nsd", metrics=("hd95_mm",), margin=0.02, draws=400)
    assert found.meta.metrics == ("nsd", "hd95_mm")
    assert found.meta.margins == {"nsd": 0.02}
    assert "by NSD" in found.sentences()[0]
    usual = analyse(scores, baseline="base", draws=400)
    assert usual.meta.metrics == ("dice", "nsd", "hd95_mm")
