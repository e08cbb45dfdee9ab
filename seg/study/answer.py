"""The answer to a study's question in a sentence for each arm, without a p-value."""

from math import ceil, floor

import numpy as np

from seg.metrics import METRICS
from seg.study.analysis import Analysis, Meta
from seg.study.scores import Row
from seg.study.sentences import MARK, below_ceiling, ceiling


def answer(analysis: Analysis) -> list[str]:
    """What is known of each arm by the primary metric, a sentence each: an answer, or what is excluded so far.

    Arms of which the same must be said share a sentence.
    """
    table = analysis.comparisons[analysis.comparisons["primary"]]
    if table.empty:
        return ["There is nothing to compare yet."]
    first = table["kind"].str.contains("baseline")
    told: dict[str, list[str]] = {}
    for _, line in (table[first] if first.any() else table).iterrows():
        name = str(line["arm"]) if first.any() else f"{line['arm']} against {line['against']}"
        told.setdefault(_finding(analysis, line), []).append(name)
    return [f"{', '.join(names)}: {finding}." for finding, names in told.items()]


def beside(analysis: Analysis) -> list[str]:
    """How the arms compare with each anchor, a finished tool: no part of the answer."""
    return [
        f"Beside {name}, a finished tool (exploratory; one training, whose own luck is not in the interval): "
        f"{' '.join(answer(own))}"
        for name, own in analysis.anchors.items()
    ]


def remark(analysis: Analysis) -> list[str]:
    """What the mark of small differences means, where an answer has it."""
    marked = any(f"; {MARK})" in sentence for sentence in answer(analysis) + beside(analysis))
    return ceiling(analysis.meta) if marked else []


def amount(value: float, metric: str, lengths: str = "mm", *, up: bool = True) -> str:
    """A size of the primary metric as people say it: ``1.3 points`` for a share, otherwise with its unit.

    Rounded up, as what is excluded is; or down, as what is found at least is.
    """
    steps = 100 if METRICS[metric].unit else 1000
    while not up and 1e-6 < value * steps < 1:  # what is found at least is not 0
        steps *= 10
    whole = ceil(value * steps - 1e-6) if up else floor(value * steps + 1e-6)
    return _measured((1 if METRICS[metric].unit else 100) * whole / steps, metric, lengths)


def _size(value: float, metric: str, lengths: str) -> str:
    """The size of a difference that was found, to two digits."""
    return _measured(float(f"{value if METRICS[metric].unit else 100 * value:.2g}"), metric, lengths)


def _measured(number: float, metric: str, lengths: str) -> str:
    """With its unit, or as points; never as a power of ten."""
    text = np.format_float_positional(number, trim="-")
    if METRICS[metric].unit:
        return METRICS[metric].with_unit(text, lengths)
    return f"{text} point{'' if text == '1' else 's'}"


def _finding(analysis: Analysis, line: Row) -> str:
    meta, metric = analysis.meta, METRICS[analysis.meta.primary]
    if line["verdict"] == "equivalent":
        margin = amount(meta.margins[metric.name], metric.name, meta.lengths)
        return f"no difference that matters; surely less than {margin} of {metric.label} either way"
    low, high = sorted(end * metric.better for end in (line["ci_low"], line["ci_high"]))
    if line["verdict"] != "inconclusive":
        least, most = sorted(map(abs, (low, high)))
        size = _size(abs(line["difference"]), metric.name, meta.lengths)
        note = f"; {MARK}" if below_ceiling(line, meta) else ""
        ends = [amount(end, metric.name, meta.lengths, up=up) for end, up in ((least, False), (most, True))]
        return f"{line['verdict']} by {size} of {metric.label} (between {' and '.join(ends)}{note})"
    matters = meta.margins.get(metric.name, 0.0)
    head = "no gain that matters" if high < matters else "no answer yet"
    return _why_none(analysis, line) or f"{head}; {_excluded(low, high, meta)}"


def _why_none(analysis: Analysis, line: Row) -> str:
    """Why there is no answer; nothing where there is one."""
    pair = {line["arm"], line["against"]}
    if pair & set(analysis.meta.one_seed):
        return "no answer; one training of an arm cannot tell it from luck"
    if pair & analysis.abnormal:
        return "no answer; some trainings ended far from the others: inspect them first"
    return ""


def _excluded(low: float, high: float, meta: Meta) -> str:
    """``low`` and ``high``: ends of the interval of the gain."""
    gain, loss = (amount(max(end, 0.0), meta.primary, meta.lengths) for end in (high, -low))
    label = METRICS[meta.primary].label
    if low > 0:
        return f"a loss in {label} is excluded, and a gain above {gain}, but a gain is not proven"
    if high < 0:
        return f"a gain in {label} is excluded, and a loss above {loss}, but a loss is not proven"
    return f"a gain in {label} above {gain} is excluded, a loss above {loss}, too"
