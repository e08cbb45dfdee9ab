"""Whether what a prediction says about itself is true of scans that the network never saw.

``python -m benchmarks conformal``: how often the interval of the expected Dice holds the Dice of a case left out, and
how many usual and how many altered scans have a finding. It trains on half of Hippocampus for five minutes and splits
the scans of the other half again and again: one part is the reference of the package, the rest is what comes in. With
the folder of a run as argument, of that run; its test cases must be on disk.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.data import options
from seg.deploy import Prediction, Predictor
from seg.deploy.findings import expected_dice, findings, risk_of
from seg.metrics import read_scores
from seg.records.folder import RunFolder

SPLITS, ALTERED = 400, 12
KEPT = Path("experiments/results")


def coverage(table: pd.DataFrame, known: int) -> dict[str, float]:
    """By class, the share of cases left out within the interval of ``known`` others, over SPLITS splits."""
    random, inside = np.random.default_rng(0), {}
    for name, part in table.dropna(subset=["dice"]).groupby("class"):
        dice, held = part["dice"].to_numpy(), []
        for _ in range(SPLITS):
            order = random.permutation(len(dice))
            expected = expected_dice({"": dice[order[:known]]})[""]
            assert expected.low is not None
            assert expected.high is not None
            new = dice[order[known:]]
            held.append(((new >= expected.low) & (new <= expected.high)).mean())
        inside[str(name)] = float(np.mean(held))
    return inside


def kept_studies() -> Iterator[pd.DataFrame]:
    """The scores of each run of the kept studies, but of those that learnt nothing."""
    for path in sorted(KEPT.glob("*/scores.csv")):
        for _, table in read_scores(path).groupby(["arm", "seed"]):
            if table["dice"].mean() > 0.5:
                yield table


def alarms(predictor: Predictor, seen: dict[str, Prediction]) -> str:
    """The share of usual scans with a medium or high finding, where the others are the reference of the confidence."""
    random, names, counts = np.random.default_rng(0), [*seen], []
    for _ in range(SPLITS):
        order = random.permutation(names)
        reference, new = order[: len(names) // 2], order[len(names) // 2 :]
        package = with_confidence(predictor, [seen[name] for name in reference]).package
        counts.append([risk_of(findings(package, seen[name].observed)) != "low" for name in new])
    return f"{np.mean(counts):.1%}"


def with_confidence(predictor: Predictor, reference: list[Prediction]) -> Predictor:
    names = [*predictor.classes][1:]
    known = {
        name: sorted(one.observed.confidence[name] for one in reference if name in one.observed.confidence)
        for name in names
    }
    return replace(predictor, package=replace(predictor.package, confidence=known))


def _saved(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[[Path, Path], None]:
    def write(scan: Path, place: Path) -> None:
        image = nib.load(scan)
        voxels, affine = change(np.asarray(image.dataobj, np.float32), image.affine.copy())
        made = nib.Nifti1Image(voxels, affine)
        nib.save(made, place)

    return write


def _no_codes(scan: Path, place: Path) -> None:
    image = nib.load(scan)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, place)


NOISE = np.random.default_rng(0)
WAYS: dict[str, Callable[[Path, Path], None]] = {
    "voxels said to be half as large": _saved(lambda v, a: (v, a @ np.diag([0.5, 0.5, 0.5, 1]))),
    "one axis said to be twice as long": _saved(lambda v, a: (v, a @ np.diag([1, 1, 2, 1]))),
    "header flipped front to back": _saved(lambda v, a: (v, a @ np.diag([1, -1, 1, 1]))),
    "header flipped upside down": _saved(lambda v, a: (v, a @ np.diag([1, 1, -1, 1]))),
    "header flipped left to right": _saved(lambda v, a: (v, a @ np.diag([-1, 1, 1, 1]))),
    "axes swapped": _saved(lambda v, a: (v, a[:, [1, 0, 2, 3]])),
    "intensities inverted": _saved(lambda v, a: (v.max() - v, a)),
    "noise alone": _saved(lambda v, a: (NOISE.normal(100, 30, v.shape).astype(np.float32), a)),
    "noise as strong as the image added": _saved(
        lambda v, a: (v + NOISE.normal(0, v.std(), v.shape).astype(np.float32), a)
    ),
    "upper half missing": _saved(lambda v, a: (v[:, : v.shape[1] // 2], a)),
    "no orientation stored": _no_codes,
}


def altered(predictor: Predictor, scans: list[Path], folder: Path) -> None:
    """Prints for each way how many scans have a medium or high finding, and one of them."""
    for name, change in WAYS.items():
        found = []
        for scan in scans[:ALTERED]:
            change(scan, folder / "scan.nii.gz")
            found.append(predictor(folder / "scan.nii.gz"))
        caught = [one for one in found if one.risk != "low"]
        example = f", for instance: {caught[0].findings[0].text}" if caught else ""
        print(f"{name}: {len(caught)} of {len(found)}{example}", flush=True)


def trained(folder: Path) -> tuple[Path, Path]:
    """The folder of a run on half of the cases, and the place of the data."""
    from hydra import compose, initialize_config_dir

    from seg.config.options import CONF
    from seg.train import train

    overrides = [*options(folder), "experiments=hippocampus", "data.test_fraction=0.5", "inference.shifts=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, "trainer.max_minutes=5"])
    result = train(cfg, "conformal")
    assert result is not None
    return folder / "runs" / result.predictions.name, Path(cfg.data.root)


def judged(run: Path, root: Path, folder: Path) -> None:
    """What a run's test cases say of its intervals and findings."""
    predictor, place = Predictor.load(run), RunFolder.at(run)
    table = read_scores(place.cases)
    print(
        f"{table['case'].nunique()} scored cases, half of them known: {coverage(table, table['case'].nunique() // 2)}"
    )
    names = json.loads(place.split.read_text("utf-8"))["test"]
    scans = [root / "imagesTr" / f"{name}.nii.gz" for name in names]
    seen = {scan.name: predictor(scan) for scan in scans}
    print(f"usual scans with a medium or high finding: {alarms(predictor, seen)}")
    altered(with_confidence(predictor, [*seen.values()][ALTERED:]), scans, folder)


def main() -> None:
    tables = [*kept_studies()]
    for known in (19, 30, 39):
        found = pd.DataFrame([coverage(table, known) for table in tables])
        shares = (f"{k} {found[k].mean():.1%} ({found[k].min():.1%} to {found[k].max():.1%})" for k in found)
        print(f"{len(tables)} kept runs, {known} cases known: {', '.join(shares)}", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run, root = (Path(one) for one in sys.argv[1:3]) if len(sys.argv) > 2 else trained(folder)
        judged(run, root, folder)


if __name__ == "__main__":
    main()
