"""What a reader needs beside a study's numbers: methods to paste into a paper, a checklist, what the words mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from seg.errors import counted, few
from seg.metrics import METRICS
from seg.study.analysis import Analysis, Meta
from seg.study.sentences import percent
from seg.study.subsets import GROUP_FROM, TENTH_FROM
from seg.study.typeset import Cell, Table

SOURCES = {
    "dice": "Dice 1945, Ecology 26:297, doi:10.2307/1932409",
    "iou": "Jaccard 1912, New Phytologist 11:37, doi:10.1111/j.1469-8137.1912.tb05611.x",
    "nsd": "Nikolov et al. 2021, J Med Internet Res 23:e26151, doi:10.2196/26151",
    "hd95_mm": "Huttenlocher et al. 1993, IEEE TPAMI 15:850, doi:10.1109/34.232073",
    "assd_mm": "Heimann et al. 2009, IEEE Trans Med Imaging 28:1251, doi:10.1109/TMI.2009.2013851",
    "metrics": "Maier-Hein, Reinke et al. 2024, Metrics reloaded, Nat Methods 21:195, doi:10.1038/s41592-023-02151-z",
    "variance": "Hillis 2007, Stat Med 26:596, doi:10.1002/sim.2532",
    "wilcoxon": "Wilcoxon 1945, Biometrics Bulletin 1:80, doi:10.2307/3001968",
    "holm": "Holm 1979, Scand J Statist 6:65",
    "tost": "Schuirmann 1987, J Pharmacokinet Biopharm 15:657, doi:10.1007/BF01068419",
    "ece": "Guo et al. 2017, On calibration of modern neural networks, ICML, PMLR 70:1321",
    "ace": "Barfoot et al. 2024, Average calibration error, MICCAI, arXiv:2403.06759",
    "tail": "Rockafellar and Uryasev 2000, J Risk 2:21, doi:10.21314/JOR.2000.038",
    "groups": "Romano and Wolf 2005, J Am Stat Assoc 100:94, doi:10.1198/016214504000000539",
    "spending": "Lan and DeMets 1983, Biometrika 70:659, doi:10.1093/biomet/70.3.659",
    "repeated": "Jennison and Turnbull 1989, J R Stat Soc B 51:305",
    "claim": "Tejani et al. 2024, CLAIM: 2024 update, Radiol Artif Intell 6:e240300, doi:10.1148/ryai.240300",
}


@dataclass(frozen=True)
class Facts:
    """What is known of the runs of a study, in words; empty where it is not."""

    dataset: str = ""
    version: str = ""  # of the data: the beginning of its fingerprint's hash
    split: str = ""
    base: Mapping[str, object] = field(default_factory=dict)  # what the study's file sets for all arms
    settings: Mapping[str, str] = field(default_factory=dict)  # resolved values that all runs have in common
    budget: str = ""
    code: str = ""
    dates: str = ""
    machine: str = ""
    command: str = ""
    lock: str = ""  # hash of what was fixed before the first run
    calibrated: bool = False  # whether the page tells how well probabilities are calibrated
    runs: Sequence[tuple[str, str, str]] = ()  # short id, name, address or ""


def methods(analysis: Analysis, facts: Facts) -> tuple[str, list[str]]:
    """A paragraph for the methods section of a paper, and its references in the order of their numbers."""
    meta = analysis.meta
    cited: dict[str, int] = {}  # the number of each source, in the order of the text

    def ref(name: str) -> str:
        return f" [{cited.setdefault(name, len(cited) + 1)}]" if name in SOURCES else ""

    arms, judged = len(meta.arms), METRICS[meta.primary].label
    data = f" on {facts.dataset}{f' (version {facts.version})' if facts.version else ''}" if facts.dataset else ""
    budget = f" for {facts.budget}" if facts.budget else ""
    folds = f" in {meta.folds} folds" if meta.folds > 1 else ""
    metrics = ", ".join(f"{_name(metric, meta)}{ref(metric)}" for metric in meta.metrics)
    classes = f"the mean of {', '.join(meta.classes)}" if len(meta.classes) > 1 else meta.classes[0]
    text = [
        f"We compared {arms} configurations{data}, which differed in nothing but what each declares "
        f"({', '.join(meta.arms)}). Each was trained with {meta.seeds_each}{folds}{budget} and scored on "
        f"{counted(meta.cases, 'case')}{f' {meta.part}' if meta.part else ''} of {counted(meta.patients, 'patient')}.",
        f"Scores were {metrics}, by case and class{ref('metrics')}; a structure that was missed or made up got the "
        "worst value, and none was dropped. Classes were averaged within a case, cases within a patient, then seeds.",
        f"The primary metric was {judged} ({classes}). The comparisons by it ({meta.family}) were one family"
        f"{ref('holm')} at a level of {percent(meta.alpha)}; other metrics were secondary, single classes exploratory.",
        _differences(meta, ref),
    ]
    if meta.primary in meta.margins:
        margin = METRICS[meta.primary].with_unit(f"{meta.margins[meta.primary]:g}", meta.lengths)
        text.append(f"Arms were called equivalent within the stated ±{margin} by two one-sided tests{ref('tost')}.")
    if meta.level is not None:
        text.append(
            "Seeds were added to the arms of undecided comparisons. Each look had its own level, by a spending "
            f"function αt³ of the information t{ref('spending')}, so that all keep {percent(meta.alpha)}; intervals "
            f"are repeated confidence intervals{ref('repeated')}."
        )
    if len(analysis.subsets):
        text.append(f"The worst tenth is the mean over the tenth of the patients each arm does worst on{ref('tail')}.")
    if meta.grouped:
        text.append(
            f"Groups of {GROUP_FROM} patients or more have simultaneous intervals (max-|t| bootstrap){ref('groups')}."
        )
    if facts.calibrated:
        text.append(
            f"Calibration, exploratory, was measured by the expected{ref('ece')} and the average calibration error"
            f"{ref('ace')} of each class in 20 bins over the whole volume."
        )
    if analysis.anchors:
        text.append(
            f"Outside this family and exploratory, the arms were compared with {few(analysis.anchors)} on the same "
            "cases: scores of a finished tool, taken as they are."
        )
    if facts.lock and not any(sentence.startswith("CHANGED") for sentence in meta.claims):
        text.append(f"Question, arms, metric, margin, test, runs, data and code were fixed beforehand ({facts.lock}).")
    if facts.code:
        text.append(f"The code was {facts.code}.")
    return " ".join(text), [SOURCES[name] for name in cited]


def _name(metric: str, meta: Meta) -> str:
    """With its tolerance, without which a normalised surface dice says nothing."""
    at = f" at {_tolerance(meta)}" if metric == "nsd" and meta.nsd_tolerance_mm is not None else ""
    return f"{METRICS[metric].label}{at}"


def _tolerance(meta: Meta) -> str:
    return f"{meta.nsd_tolerance_mm:g} {meta.lengths}" if meta.nsd_tolerance_mm is not None else ""


def _differences(meta: Meta, ref: Callable[[str], str]) -> str:
    """How differences were judged."""
    text = f"Differences are paired by patient; their {percent(1 - meta.alpha)} intervals come from {meta.draws:,} "
    if max(meta.seeds.values()) == 1:
        return text + (
            "bootstrap draws over patients. No difference could be claimed: of one training an arm its luck cannot be "
            "told apart."
        )
    return text + (
        f"bootstrap draws over patients, with the variance over seeds added{ref('variance')}. A difference was claimed "
        f"where Student's test of the mean, with both variances, and Wilcoxon's signed-rank test over "
        f"patients{ref('wilcoxon')} held after Holm's adjustment and the interval left 0 out."
    )


def checklist(analysis: Analysis, facts: Facts) -> Table:
    """The items of CLAIM (2024) and of Metrics Reloaded that the record can answer, in our words."""
    meta = analysis.meta
    surface = [METRICS[name].label for name in meta.metrics if name in ("nsd", "hd95_mm", "assd_mm")]
    tests = f"{percent(1 - meta.alpha)} intervals over {meta.drawn}; two tests after Holm over {meta.family}"
    claim = {
        "4 Objectives": f"the question above; margin {_margins(analysis) or 'none'}",
        "7 Data sources": " ".join(filter(None, [facts.dataset, facts.version and f"version {facts.version}"])),
        "9 Preprocessing": facts.settings.get("Preprocessing", ""),
        "19 Partitions": facts.split,
        "20 Disjoint at which level": "patients" if facts.split else "",
        "22 Model": facts.settings.get("Network", ""),
        "23 Software": facts.machine,
        "25 Training": "; ".join(filter(None, [facts.settings.get("Training", ""), facts.budget])),
        "28 Performance metrics": ", ".join(_name(metric, meta) for metric in meta.metrics),
        "29 Uncertainty and significance": tests,
        "30 Robustness": "; ".join([f"{meta.seeds_each} an arm", *analysis.subsets["subset"].unique()]),
        "32 Internal testing": f"{counted(meta.cases, 'case')} {meta.part or 'scored'}",
        "33 External testing": "none: cases of the same data set",
        "37 Performance in subgroups": "by class" + (" and by group" if meta.grouped else "; no groups were given"),
        "39 Failures": "missed and false structures are counted" if "missed" in analysis.arms else "",
        "43 Availability": f"code {facts.code}" if facts.code else "",
    }
    reloaded = {
        "Overlap and boundary together": f"yes: {', '.join(surface)} beside the overlap"
        if surface
        else "no boundary metric",
        "Tolerance stated": _tolerance(meta),
        "Each class by itself": "yes" if analysis.classes["class"].nunique() > 1 else "there is one class",
        "Aggregation": "classes within a case, cases within a patient; the unit is the patient",
        "Missing and empty masks": "worst value where one mask is empty, not scored where both are; none dropped",
        "Calibration": "ECE and mL1-ACE, exploratory" if facts.calibrated else "not assessed",
    }
    blocks = {f"CLAIM, {len(claim)} of its 44 items": claim, "Metrics Reloaded": reloaded}
    rows = {
        title: [[Cell(item), Cell(told or "the record does not tell")] for item, told in items.items()]
        for title, items in blocks.items()
    }
    note = (
        f"Items in our words; numbers as in {SOURCES['claim']}; {SOURCES['metrics']}. Those about patients, annotators "
        "and clinical use are for the authors to answer."
    )
    return Table("Checklist", ["Item", "In this study"], rows, note)


def _margins(analysis: Analysis) -> str:
    meta = analysis.meta
    return ", ".join(f"±{METRICS[name].with_unit(f'{value:g}', meta.lengths)}" for name, value in meta.margins.items())


def glossary(analysis: Analysis) -> Table:
    """One sentence for each column, for readers who see patients and not statistics."""
    meta = analysis.meta
    tolerance, best = _tolerance(meta) or "the tolerance", f"0 {meta.lengths} is best"
    words = {
        "dice": "How much of the drawn structure overlaps the reference: 1 is all of it, 0 none.",
        "iou": "Overlap like Dice, on a harsher scale.",
        "precision": "How much of what was drawn is really the structure.",
        "recall": "How much of the structure was drawn.",
        "nsd": f"How much of the outline runs within {tolerance} of the reference's outline.",
        "hd95_mm": f"How far the outline strays from the reference, its worst twentieth left out; {best}.",
        "assd_mm": f"How far the outline lies from the reference on average; {best}.",
        "volume_difference_ml": "How much volume was drawn too much (above 0) or too little.",
    }
    rows = {METRICS[name].label: words[name] for name in meta.metrics if name in words} | {
        "Interval": "Other patients and other trainings would most likely have given a value in here.",
        "Missed, False": "How often a structure that is there was not drawn at all, and one that is not there was.",
        "Difference, Δ": "How much higher or lower the arm scores than the other, patient by patient.",
        "p mean, p ranks": "How easily chance alone would make such a difference: on average; in the typical patient.",
        "Effect": "How one-sided patients are: +1, all of them gain; 0, as many gain as lose; −1, all of them lose.",
        "W/T/L": "How many patients are better, equal and worse off with the arm.",
        "Visible": "The smallest real difference that a study of this size would most likely have noticed.",
        "Verdict": "Better, worse, equivalent (no difference that matters), or inconclusive: this study cannot tell.",
        "False claim": "Of claims on such evidence, how many are wrong at least, if every second idea is worthless.",
        "ECE, mL1-ACE": "How far probabilities are from the truth; 0: of voxels called 70 % sure, 70 % are right.",
        "Worst tenth": f"The mean of the tenth of patients an arm does worst on; intervals from {TENTH_FROM} on.",
        "SD of patients, of seeds": "How much scores differ from patient to patient, and from training to training.",
        "Rank": "How likely the arm would come first, second, … if the study were done again.",
    }  # fmt: skip
    if "claim" in analysis.comparisons:
        rows["Claim"] = "What became of what was claimed before the first training: confirmed, or the opposite shown."
    return Table(
        "What the columns mean", ["Column", "Meaning"], {"": [[Cell(a), Cell(b)] for a, b in rows.items()]}, ""
    )
