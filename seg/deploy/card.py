"""A model card: what a network is for, what it learnt from, how good it is, and what is not known. Markdown."""

from dataclasses import dataclass, replace

import numpy as np

from seg.deploy.package import Package
from seg.errors import times
from seg.metrics import read_scores
from seg.records.folder import RunFolder
from seg.records.provenance import short
from seg.study.tools import scores_table
from seg.study.typeset import markdown, markdown_text

LONGEST = 5000  # characters of a description that MLflow's databases hold


@dataclass(frozen=True)
class Facts:
    """What a run cannot know of itself."""

    who: str
    use: str
    limits: str
    phi: str
    approval: str
    reviewer: str

    @property
    def tags(self) -> dict[str, str]:
        """As the tags of a version."""
        return {"who": self.who, "phi": self.phi, "approval": self.approval, "reviewer": self.reviewer or "none"}


def model_card(name: str, run: RunFolder, package: Package, facts: Facts) -> str:
    """The card of a run's network, at most ``LONGEST`` characters: of many classes the mean of the scores alone.

    Raises:
        DataError: the run's scores are damaged.
    """
    parts = [
        f"# {markdown_text(name)}",
        _question(package),
        f"**Intended use**: {markdown_text(facts.use) or 'not stated'}. Not a medical device: look at every mask.",
        "## Data",
        _data(package),
        "## Accuracy",
    ]
    end = ["## Limits", _limits(package, facts), "## Origin", _origin(run, package, facts)]
    for by_class in (True, False):
        card = "\n\n".join([*parts, _accuracy(run, by_class=by_class), *end])
        if len(card) <= LONGEST:
            break
    return card[:LONGEST]


def _question(package: Package) -> str:
    names = [*package.classes][1:]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    channels, model = ", ".join(package.channels), str(package.settings["model"]["_target_"]).rpartition(".")[2]
    return (
        f"Which voxels of a {package.settings['dims']}-D image ({markdown_text(channels)}) are "
        f"{markdown_text(shown)}? Answered by a {model}{_cost(package)}."
    )


def _cost(package: Package) -> str:
    ways = {
        "params": (1e-6, "M weights"),
        "gflops_a_patch": (1, "GFLOPs a patch"),
        "inference_seconds_a_case": (1, "s a scan when it was tested"),
    }
    known = [f"{package.cost[name] * by:.2g} {unit}" for name, (by, unit) in ways.items() if name in package.cost]
    return f" ({', '.join(known)})" if known else ""


def _data(package: Package) -> str:
    cases, origin = package.training, package.origin
    spacing = np.array([case["spacing_mm"] for case in cases])
    size = np.array([case["shape"] for case in cases]) * spacing
    if cases and cases[0].get("unit") == "pixels":
        sizes = f"- pictures of {_range(size[:, :2])} pixels"
    else:
        sizes = f"- voxels of {_range(spacing)} mm, fields of view of {_range(size)} mm"
    return "\n".join(
        [
            f"- {markdown_text(origin['data'])}, version `{origin.get('dataset_version', '')[:12]}`, split "
            f"`{origin.get('split_hash', '')[:12]}`; {len(cases)} cases to train and to validate",
            sizes,
        ]
    )


def _range(values: np.ndarray) -> str:
    low, high = (ends.round(2).tolist() for ends in (values.min(0), values.max(0)))
    return times(low) if low == high else f"{times(low)} to {times(high)}"


def _accuracy(run: RunFolder, *, by_class: bool) -> str:
    """The table of the scored cases, each with its interval over patients."""
    table = read_scores(run.cases) if run.cases.exists() else None
    if table is None or table.empty:
        return "No case was scored: nothing is known of its accuracy."
    cfg = run.read_config()
    part = "validation part, out of fold" if cfg.inference.part == "val" else "test part"
    scores = table.assign(arm=run.short, seed=str(cfg.seed), fold=str(cfg.data.fold))
    found = scores_table(scores, [run.short])
    blocks = {title: lines if by_class else lines[-1:] for title, lines in found.blocks.items()}
    _, _, text = markdown(replace(found, blocks=blocks)).partition("\n\n")
    return f"On {table['case'].nunique()} cases of the {part}, which it was not trained on.\n\n{text}"


def _limits(package: Package, facts: Facts) -> str:
    lines = [
        "nothing is known of scans of other voxels, fields of view, intensities or patients than above",
        "one training: another one of the same would give other masks, and its scores are not in the intervals",
        "a version is only as good as its labels, and says nothing of other structures",
    ]
    if facts.limits:
        lines.insert(0, markdown_text(facts.limits))
    return "\n".join(f"- {line}" for line in lines)


def _origin(run: RunFolder, package: Package, facts: Facts) -> str:
    origin, cfg = package.origin, run.read_config()
    changed = ", with changes that were not committed" if origin.get("git_dirty") == "true" else ""
    place = f"study {cfg.study}" + (f", arm {cfg.arm}" if cfg.arm else "")
    lines = [
        f"run `{run.run_id}` ({place}, fold {cfg.data.fold}, seed {cfg.seed})",
        f"code `{short(origin.get('git_commit', 'unknown'), 12)}`{changed}; "
        f"seg {origin['seg']}, torch {origin['torch']}",
        f"registered by {facts.who}; protected health information: {facts.phi}",
    ]
    return "\n".join(f"- {markdown_text(line) if '`' not in line else line}" for line in lines)
