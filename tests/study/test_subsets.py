"""The worst tenth of the patients, and groups of them: by definition, and by simulation."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.coverage import group_studies, tenth_coverage
from benchmarks.statistics import study
from seg.errors import ConfigError, DataError
from seg.study.analysis import Analysis, analyse
from seg.study.subsets import patient_groups, read_groups, worst_tenth
from seg.study.tables import markdown

GAINS = {"base": 0.0, "se": 0.01}
SCORES = study(GAINS, patients=60, spread=0.004, rest=0.004, seed_spread=0.0005)
SITES = {f"p{n:03d}": "north" if n < 35 else "south" if n < 52 else "west" for n in range(60)}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    worse = (SCORES["arm"] == "se") & SCORES["patient"].map(SITES).eq("south")
    scores = SCORES.assign(dice=SCORES["dice"] - 0.03 * worse)
    return analyse(scores, baseline="base", margin=0.005, groups=SITES, draws=2000)


def test_the_worst_tenth_is_a_mean_over_the_lowest_patients_of_each_arm() -> None:
    means = np.array([[0.9, 0.1, *[0.8] * 18], [0.2, 0.9, *[0.7] * 17, 0.4]])
    assert worst_tenth(means, 1)[0] == pytest.approx([(0.1 + 0.8) / 2, (0.2 + 0.4) / 2])
    assert worst_tenth(means, -1)[0] == pytest.approx([(0.9 + 0.8) / 2, (0.9 + 0.7) / 2])
    assert worst_tenth(means[:, :15], 1)[0, 0] == pytest.approx((0.1 + 0.5 * 0.8) / 1.5), "of 15 patients 1.5"
    twice = np.array([[0.0, 2.0, *[1.0] * 18]])
    assert worst_tenth(means, 1, twice)[0, 0] == pytest.approx(0.1), "who was drawn twice counts twice"


def test_of_an_analysis_they_are_those_of_plain_python(analysis: Analysis) -> None:
    wide = analysis.patients.query("metric == 'dice'").pivot(index="patient", columns="arm", values="value")
    tenth = analysis.subsets.query("subset == 'worst tenth'").set_index("arm")
    expected = {arm: sorted(wide[arm])[:6] for arm in GAINS}
    assert tenth["value"].to_dict() == pytest.approx({arm: np.mean(own) for arm, own in expected.items()})
    groups = analysis.subset_comparisons.query("subset != 'worst tenth'").set_index("subset")
    means = (wide["se"] - wide["base"]).groupby(SITES).mean()
    assert groups["value"].to_dict() == pytest.approx(means.to_dict())
    assert list(groups.index) == ["north", "south", "west"], "the largest first"


def test_the_worst_group_is_named_and_a_small_one_only_shown(analysis: Analysis) -> None:
    lines = analysis.subset_comparisons.set_index("subset")
    assert lines.loc["south", "ci_high"] < 0 < lines.loc["north", "ci_low"]
    assert np.isnan(lines.loc["west", ["ci_low", "ci_high"]].to_numpy(float)).all(), "8 patients"
    (told,) = [one for one in analysis.sentences() if one.startswith("The group that gains least")]
    assert told.endswith(" in south.")
    assert "all groups hold at once" in told
    text = markdown(analysis)
    assert "*west: 8 patients, too few to judge*" in text
    assert "*The worst tenth of the patients (6)*" in text


def test_few_patients_have_no_interval_of_the_worst_tenth_and_very_few_no_worst_tenth() -> None:
    for patients, shown in ((39, True), (19, False)):
        found = analyse(study(GAINS, patients=patients), baseline="base", draws=400)
        assert (len(found.subset_comparisons) == 1) == shown
        assert found.subset_comparisons["ci_low"].isna().all()
        assert not any("worst tenth" in one for one in found.sentences())


def test_an_arm_that_failed_does_not_widen_the_groups_of_the_others() -> None:
    gains = {"base": 0.0, "se": 0.0, "wild": 0.0}
    scores = study(gains, patients=60)
    failed = (scores["arm"] == "wild") & (scores["seed"] == 1)
    found = analyse(scores.assign(dice=scores["dice"].where(~failed, 0.0)), baseline="base", groups=SITES, draws=2000)
    lines = found.subset_comparisons.set_index(["subset", "arm", "against"])
    reach = (lines["ci_high"] - lines["ci_low"]).loc["north"]
    assert reach["se", "base"] < 0.1 < reach["wild", "base"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient,site\na,1\na,2\n", "the patient of line 3 is there before"),
        ("patient,site\na,\n", "line 2 has an empty cell"),
        ("name,site\na,1\n", "has the columns name, site"),
        ("patient\na\n", "has the columns patient"),
        ("case,case,group\na,b,A\n", "has the columns case, case, group"),
        ("case,group,group\na,A,B\n", "has the columns case, group, group"),
        ("case,patient\na,1\n", "has the columns case, patient"),
        ("case,\na,A\n", "has the columns case, "),
    ],
)
def test_a_table_of_groups_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "sites.csv").write_text(content)
    with pytest.raises(ConfigError, match=f"{message}.*`patient,site` or `case,site`"):
        read_groups(tmp_path / "sites.csv")
    with pytest.raises(ConfigError, match="not a readable CSV"):
        read_groups(tmp_path / "none.csv")


def test_a_group_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "sites.csv").write_text("case,site\na,North\nb,north\nc,South\n")
    with pytest.raises(ConfigError, match="the groups North are there in other capital letters, too"):
        read_groups(tmp_path / "sites.csv")


def test_groups_may_be_of_patients_or_of_cases(tmp_path: Path) -> None:
    whose = [("c1", "007"), ("c2", "007"), ("c3", "NA")]
    (tmp_path / "sites.csv").write_text("patient,site\n007,A\nNA,B\nother,B\n")
    assert patient_groups(read_groups(tmp_path / "sites.csv"), whose) == {"007": "A", "NA": "B"}
    (tmp_path / "sites.csv").write_text("Case;site\nc1.nii.gz;A\nc2;A\nc3;B\n")  # as spreadsheets write it
    assert patient_groups(read_groups(tmp_path / "sites.csv"), whose) == {"007": "A", "NA": "B"}
    with pytest.raises(DataError, match=r"(?s)lacks the cases c3\. .*another group than others of their patient: c2"):
        patient_groups({"case": {"c1": "A", "c2": "B"}}, whose)
    with pytest.raises(DataError, match="groups lacks 1 patient"):
        analyse(SCORES, baseline="base", groups={k: v for k, v in SITES.items() if k != "p059"}, draws=400)


@pytest.mark.slow
def test_in_simulated_studies_the_intervals_hold() -> None:
    assert tenth_coverage("skewed", 60, 0.8, 0.002, studies=60, draws=400) >= 0.88
    together, alone = group_studies([12] * 8, 0.002, studies=50, draws=400)
    assert alone < 0.85 < together
