"""A study whose seeds are added until it is decided: its looks, from its table of scores, and what to tell of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from seg.errors import counted
from seg.metrics import METRICS
from seg.study.analysis import Analysis, analyse
from seg.study.contrasts import pair_weights
from seg.study.options import LEVEL, compared_pairs
from seg.study.question import Seeds
from seg.study.scores import Numbers, patient_values
from seg.study.sentences import about, percent
from seg.study.sequential import CHANCE, LEAST, Look, Looking, enough
from seg.study.typeset import Cell, Table

_WHY = {
    "decided": "every comparison is decided",
    "futile": f"what is undecided would stay so with {{most}} seeds, in all likelihood (over {1 - CHANCE:.0%})",
    "most": "{most} seeds are the most",
}


def why(look: Look, seeds: Seeds) -> str:
    """Why no seeds are added after a look that ended a study."""
    return _WHY[look.why].format(most=seeds.most)


def looks_of(
    scores: pd.DataFrame,
    seeds: Seeds,
    *,
    arms: Sequence[str],
    against: Sequence[str],
    primary: str,
    classes: Sequence[str] | None,
    margin: float,
    alpha: float = LEVEL,
) -> list[Look]:
    """Every look that the scores allow; none before all arms have their first seeds.

    Args:
        scores: as in ``analyse``, of seeds that are complete.
        seeds: the rule.
        arms: the baseline first.
        against: as in ``analyse``, and so are the others.
        primary: metric that decides.
        classes: judged by the mean over these.
        margin: of the primary metric.
        alpha: of all looks together.
    """
    if scores.empty or set(arms) - set(scores["arm"]):
        return []
    values = patient_values(scores, arms=arms, metrics=[primary], classes=classes)
    places = {arm: place for place, arm in enumerate(arms)}
    pairs = [(places[one], places[other]) for one, other in compared_pairs(arms, against)]
    weights = pair_weights(pairs, len(arms))

    def at(taken: Sequence[int]) -> Sequence[Numbers]:  # a class that a later seed made up is none of an earlier look's
        rows = first(scores, arms, taken)
        return patient_values(rows, arms=arms, metrics=[primary], classes=classes).by_metric[primary]

    return Looking(weights, METRICS[primary], seeds, margin, alpha).looks(values.by_metric[primary], at)


def first(scores: pd.DataFrame, arms: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """The rows of the first seeds of each arm, so many."""
    place = pd.to_numeric(scores["seed"]).groupby(scores["arm"]).rank("dense")
    return scores[place <= scores["arm"].map(dict(zip(arms, seeds, strict=True)))]


def analysis_at(looks: Sequence[Look], scores: pd.DataFrame, **asked: Any) -> Analysis:
    """The analysis at the last look: verdicts stand once they are reached, all else is of the seeds so far.

    Args:
        looks: of ``looks_of``, one at least.
        scores: that these came from; what is of later seeds is left out.
        asked: arguments of ``analyse``, ``arms`` in the order of the looks.
    """
    look = looks[-1]
    used = first(scores, list(asked["arms"]), look.seeds)
    found = analyse(used, level=look.level, draws=enough(look.level, 10_000), **asked)
    own = found.comparisons.index[found.comparisons["primary"]]
    for name in look.table:
        found.comparisons.loc[own, name] = look.table[name].to_numpy()
    return found


def words(looks: Sequence[Look], seeds: Seeds) -> str:
    """How the study went, in a few sentences."""
    look = looks[-1]
    done = sum(map(bool, look.decided))
    ends = f"It ended there: {why(look, seeds)}." if look.why else "More seeds are to come."
    verb = "is" if 1 in (done, len(look.decided)) else "are"
    saved = 1 - sum(look.seeds) / seeds.most / len(look.seeds)
    return (
        f"Seeds until decided: from {seeds.start} to {seeds.most} an arm, with a look after each. The last of "
        f"{counted(len(looks), 'look')} was after {max(look.seeds)} seeds: {done} of "
        f"{counted(len(look.decided), 'comparison')} {verb} decided. {ends}"
        + (f" {about(saved)} of the trainings were saved." if look.why and saved else "")
        + f" Each look has a level of its own, so that all together keep {percent(LEVEL)}, and the intervals hold at "
        "all looks at once."
    )


def looks_table(looks: Sequence[Look], pairs: Mapping[tuple[str, str], str]) -> Table:
    """A row for each look: its level, and what was decided.

    Args:
        looks: of ``looks_of``.
        pairs: of ``compared_pairs``, in the same order.
    """
    names = [f"{one} – {other}" for one, other in pairs]
    rows = []
    for look in looks:
        count = max(look.seeds)
        ended = [
            f"{name}: {verdict}"
            for name, verdict, after in zip(names, look.table["verdict"], look.decided, strict=True)
            if after == count
        ]
        ended += [f"{name}: no more seeds" for name, after in zip(names, look.given_up, strict=True) if after == count]
        level = f"{look.level:.4f}" if look.level else "none"
        rows.append([Cell(str(count)), Cell(about(look.information)), Cell(level), Cell("; ".join(ended) or "–")])
    note = (
        "Information: what part there is of that of the most seeds, in the comparison that has least. Of the level "
        f"{LEVEL:g}, its cube is spent; a look with under {LEAST:.0%} of the level decides nothing. No more seeds: a "
        f"verdict would come with less than {CHANCE:.0%} probability."
    )
    return Table("Looks", ["Seeds", "Information", "Level", "Decided"], {"": rows}, note.replace("%", " %"))
