"""Whether what was locked came true: claims against studies whose answer is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.locks import one_after_the_other
from benchmarks.statistics import study
from seg.study.analysis import Analysis, analyse
from seg.study.lock import (
    CHANGED,
    CONFIRMED,
    EXPLORATORY,
    REFUTED,
    UNDECIDED,
    changes_since,
    judged,
    keep_lock,
    lock_of,
)
from seg.study.looks import analysis_at, looks_of
from seg.study.question import Asked, Seeds
from seg.study.sequential import Look
from seg.study.tables import markdown

ARMS = {"baseline": 0.0, "up": 0.03, "same": 0.0, "down": -0.03, "maybe": 0.006}


def asked(claim: str = "better") -> Asked:
    different: dict[str, dict[str, list[object]]] = {}
    return Asked("s", "s-1", "Why?", tuple(ARMS), different, {}, ("baseline",), 0.005, 15, lock=True, claim=claim)


def found(seed_spread: float = 0.0005, rng: int = 0, **gains: float) -> Analysis:
    scores = study(ARMS | gains, patients=120, seed_spread=seed_spread, spread=0.006, rest=0.006, rng=rng)
    return analyse(scores, baseline="baseline", against=("baseline",), margin=0.005, draws=1000)


def claims(analysis: Analysis, metric: str = "dice") -> dict[str, str]:
    table = analysis.comparisons[analysis.comparisons["metric"] == metric]
    return dict(zip(table["arm"], table["claim"], strict=True))


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("better", {"up": CONFIRMED, "same": REFUTED, "down": REFUTED}),
        ("equivalent", {"up": REFUTED, "same": CONFIRMED, "down": REFUTED}),
        ("not_worse", {"up": CONFIRMED, "same": CONFIRMED, "down": REFUTED}),
    ],
)
def test_a_claim_is_confirmed_or_its_opposite_shown(claim: str, expected: dict[str, str]) -> None:
    analysis = judged(found(), asked(claim), "abc", [], 1)
    told = claims(analysis)
    assert {arm: told[arm] for arm in expected} == expected
    assert set(claims(analysis, "hd95_mm").values()) == {EXPLORATORY}, "another metric was not claimed"
    words = {"better": "better than", "equivalent": "equivalent to", "not_worse": "not worse than"}[claim]
    assert f"same {words} baseline: {expected['same']}" in analysis.meta.claims[0]
    assert f"| {expected['up']} |" in markdown(analysis).replace("**", "")


def test_hd95_is_better_where_it_is_lower() -> None:
    scores = study(ARMS, patients=120, seed_spread=0.0005, spread=0.006, rest=0.006)
    analysis = analyse(
        scores, baseline="baseline", against=("baseline",), margin=0.1, primary="hd95_mm", metrics=(), draws=1000
    )
    told = claims(judged(analysis, asked(), "abc", [], 1), "hd95_mm")
    assert (told["up"], told["down"]) == (CONFIRMED, REFUTED)


def test_a_loss_that_is_not_proven_refutes_a_gain_that_is_excluded() -> None:
    """Below the margin for sure, above minus the margin not: neither worse nor equivalent, and no gain that matters."""
    for rng in range(20):
        analysis = judged(found(0.002, rng, same=-0.004), asked(), "abc", [], 1)
        line = analysis.comparisons.query("metric == 'dice' and arm == 'same'").iloc[0]
        if line["verdict"] == "inconclusive" and line["claim"] == REFUTED:
            assert line["ci_high"] < 0.005
            break
    else:
        pytest.fail("in no study was the gain excluded without another verdict")


def test_a_later_study_on_the_same_cases_needs_more() -> None:
    analysis = found(0.002, maybe=0.008)
    line = analysis.comparisons.query("metric == 'dice' and arm == 'maybe'").iloc[0]
    p = max(line["p_mean_holm"], line["p_wilcoxon_holm"])
    assert line["verdict"] == "better"
    first, enough, too_many = (judged(analysis, asked(), "abc", [], n) for n in (1, 0.05 // p, 0.05 // p + 1))
    assert [claims(one)["maybe"] for one in (first, enough, too_many)] == [CONFIRMED, CONFIRMED, UNDECIDED]
    assert claims(too_many)["same"] == claims(first)["same"], "it is not refuted the more easily"
    assert too_many.comparisons["verdict"].equals(analysis.comparisons["verdict"]), "verdicts stay as they are"
    assert len(first.meta.claims) == 1
    assert "instead of 5 %" in too_many.meta.claims[1]


def test_nothing_is_decided_of_half_a_study_or_of_one_seed() -> None:
    analysis = found()
    preliminary = replace(analysis.meta, notice="Preliminary: 14 of 15 runs are finished.")
    half = judged(replace(analysis, meta=preliminary), asked(), "abc", [], 1)
    assert set(claims(half).values()) == {UNDECIDED}
    assert "before all of its runs have finished" in half.meta.claims[1]
    scores = study(ARMS, patients=120, seeds=1)
    one = analyse(scores, baseline="baseline", against=("baseline",), margin=0.005, draws=1000)
    for claim in ("better", "equivalent", "not_worse"):
        assert set(claims(judged(one, asked(claim), "abc", [], 1)).values()) == {UNDECIDED}


def sequential(rng: int = 0) -> tuple[list[Look], Analysis]:
    scores = study(ARMS, patients=120, seeds=5, seed_spread=0.004, spread=0.006, rest=0.006, rng=rng)
    options: dict[str, Any] = {"arms": [*ARMS], "against": ("baseline",), "primary": "dice", "classes": None}
    looks = looks_of(scores, Seeds(3, 5), margin=0.005, **options)
    return looks, analysis_at(looks, scores, baseline="baseline", margin=0.005, **options)


def test_of_seeds_until_decided_each_claim_is_held_to_the_level_of_its_look() -> None:
    looks, analysis = sequential()
    assert len({look.level for look in looks}) > 1
    line = analysis.comparisons.query("metric == 'dice' and arm == 'up'").iloc[0]
    p, level = max(line["p_mean_holm"], line["p_wilcoxon_holm"]), looks[looks[-1].decided[0] - 3].level
    assert line["verdict"] == "better"
    held, missed = (judged(analysis, asked(), "abc", [], int(level / p) + more, looks) for more in (0, 1))
    assert (claims(held)["up"], claims(missed)["up"]) == (CONFIRMED, UNDECIDED)


def test_of_seeds_until_decided_no_run_is_added_or_left_out_beyond_the_rule(tmp_path: Path) -> None:
    looks, _ = sequential()
    sequentially = replace(asked(), until=(3, 5))
    cells = [{"arm": arm, "seed": str(seed), "fold": "0"} for arm in ARMS for seed in range(5)]
    lock = lock_of(sequentially, runs=cells, data="d", code={}, stop={})
    digest, _ = keep_lock(tmp_path, lock)
    wanted = {(arm, seed) for arm, count in zip(ARMS, looks[-1].seeds, strict=True) for seed in range(count)}
    assert 15 <= len(wanted) < 25

    def changed(made: set[tuple[str, int]]) -> list[str]:
        frame = pd.DataFrame(made, columns=["arm", "seed"]).assign(fold=0, run_id_short="r", dataset_version="d")
        found = changes_since(tmp_path, digest, sequentially, frame, True, looks)
        return [one for one in found if one.startswith("runs ")]

    assert changed(wanted) == []
    one = min({(arm, 4) for arm in ARMS} - wanted)
    assert changed(wanted | {one}) == [f"runs that were not planned: {one[0]}, seed 4, fold 0"]
    assert changed(wanted - {("up", 2)}) == ["runs left out: up, seed 2, fold 0"]


def test_what_was_changed_confirms_nothing() -> None:
    analysis = judged(found(), asked(), "abc", ["margin: 0.005 was locked, 0.1 is there now"], 1)
    assert set(claims(analysis).values()) == {CHANGED}
    assert "CHANGED since it was locked: margin: 0.005 was locked, 0.1 is there now" in analysis.sentences()[1]


def test_a_lock_is_written_once(tmp_path: Path) -> None:
    lock = {"asked": {"margin": 0.005, "arms": ["a", "b"]}, "code": {"git_commit": "c"}, "level": 0.05, "runs": [1]}
    digest, changed = keep_lock(tmp_path, lock)
    assert changed == []
    before = (tmp_path / "lock.json").read_bytes()
    assert keep_lock(tmp_path, lock) == (digest, [])
    other = {"asked": {"margin": 0.01, "arms": ["a", "b"]}, "code": {"git_commit": "d"}, "level": 0.05, "runs": [2]}
    assert keep_lock(tmp_path, other) == (
        digest,
        [
            "margin: 0.005 was locked, 0.01 is there now",
            "git_commit: c was locked, d is there now",
            "runs: their number, settings or splits are not those that were locked",
        ],
    )
    assert (tmp_path / "lock.json").read_bytes() == before
    (tmp_path / "lock.json").write_bytes(before.replace(b"0.005", b"0.001"))
    assert "damaged" in keep_lock(tmp_path, lock)[1][0]


def test_no_spread_at_all_is_no_fault() -> None:
    scores = study(dict.fromkeys(ARMS, 0.0), patients=20)
    scores["dice"], scores["hd95_mm"] = 0.9, 1.0
    with np.errstate(all="raise"):
        analysis = analyse(scores, baseline="baseline", against=("baseline",), margin=0.005, draws=1000)
        assert set(claims(judged(analysis, asked(), "abc", [], 1)).values()) == {REFUTED}


def _one_after_the_other(studies: int, parts: int) -> tuple[float, float]:
    plain, charged = one_after_the_other(studies, parts, patients=40, seed_sd=0.0)
    assert (charged <= plain).all()
    assert charged[0] == plain[0], "the first study is not charged"
    return float(plain[-1]), float(charged[-1])


def test_what_is_barely_confirmed_in_a_first_study_is_not_in_a_fourth() -> None:
    """Of one and the same study, with the smallest gain that a first one on these cases confirms."""

    def claimed(analysis: Analysis, place: int) -> str:
        return claims(judged(analysis, asked(), "abc", [], place))["maybe"]

    studies = (found(maybe=gain) for gain in np.arange(0.001, 0.02, 0.00025))
    barely = next(analysis for analysis in studies if claimed(analysis, 1) == CONFIRMED)
    assert claimed(barely, 4) == UNDECIDED


def test_later_studies_without_effect_are_not_confirmed_the_more_easily() -> None:
    _one_after_the_other(4, 5)


@pytest.mark.slow
def test_of_many_studies_without_effect_on_one_test_part_few_are_confirmed() -> None:
    plain, charged = _one_after_the_other(12, 60)
    assert plain > 0.1, "what is charged for"
    most = 0.025 * sum(1 / n for n in range(1, 13))
    assert charged <= most + 2 * (most * (1 - most) / 60) ** 0.5
