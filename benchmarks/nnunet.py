"""nnU-Net trained for some minutes of one processor on the folds of a data set here: an anchor for a study of as many.

``python -m benchmarks.nnunet minutes=10 bin=/venv/bin file=anchor.csv data=folder data.root=… data.test_fraction=0``,
with the data keys of the study. ``bin`` is that of an environment with nnunetv2 2.8 (and the torch of this one).
Preprocessing and prediction are not counted. What was trained already is kept: after a stop the same command continues.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from seg.config.options import CONF
from seg.data import nifti
from seg.data.cases import CaseSet
from seg.data.classes import class_indices
from seg.data.grids import spacing_mm
from seg.data.volumes import read_header, read_image, read_label
from seg.engine.cases import read_material, split_of
from seg.files import atomic_write, digest
from seg.metrics import score_case

NUMBER, TRAINER = 901, "nnUNetTrainerMinutes"


def write_raw(cases: CaseSet, folder: Path) -> None:
    """The cases as nnU-Net wants them: channels in files of their own, labels as class indices."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in cases.cases:
        image, affine = read_image(case.images)
        assert case.label
        for number, channel in enumerate(image):
            nifti.write_volume(folder / "imagesTr" / f"{case.id}_{number:04}.nii.gz", channel, affine)
        label = class_indices(read_label(case.label), cases.labels)
        nifti.write_volume(folder / "labelsTr" / f"{case.id}.nii.gz", label, affine)
    about = {
        "channel_names": {str(number): name for number, name in enumerate(cases.channels)},
        "labels": {name: number for number, name in enumerate(cases.names)},
        "numTraining": len(cases.cases),
        "file_ending": ".nii.gz",
    }
    atomic_write(folder / "dataset.json", json.dumps(about))


def scores(cases: CaseSet, ids: Iterable[str], masks: Path, tolerance_mm: float) -> pd.DataFrame:
    """Of the cases ``ids``: ``<case>.nii.gz`` of class indices in ``masks`` beside the reference."""
    rows, known = [], {case.id: case for case in cases.cases}
    for case in (known[one] for one in ids):
        assert case.label
        label = class_indices(read_label(case.label), cases.labels)
        spacing = spacing_mm(read_header(case.label).affine)
        found = score_case(read_label(masks / f"{case.id}.nii.gz"), label, cases.names, spacing, tolerance_mm)
        rows += [{"case": case.id, **row} for row in found]
    return pd.DataFrame(rows)[["case", "class", "dice", "nsd", "hd95_mm"]]


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    minutes, programs, file = (given.pop(key) for key in ("minutes", "bin", "file"))
    overrides = [f"{key}={value}" for key, value in given.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, "data.fold=0", "tracking=none"])
    material = read_material(cfg)
    cases, first = material.cases, material.split
    if cases.regions or cases.ignore is not None or first.test:
        sys.exit("nnU-Net is compared on plain classes and out of fold only. For the latter: data.test_fraction=0.")
    splits = [split_of(cfg, material.fingerprint, fold) for fold in range(first.folds)]
    version = digest([material.fingerprint.hash, [split.hash for split in splits]])
    root = Path(cfg.paths.outputs) / "nnunet" / f"{cases.name}-{minutes}min-{version[:8]}"
    name = f"Dataset{NUMBER}_{cases.name}"
    places = {key: str((root / key).absolute()) for key in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    own = {
        "nnUNet_extTrainer": str(Path(__file__).parent / "trainers"),
        "NNUNET_MINUTES": minutes,
    }
    environment = os.environ | places | own

    def run(program: str, *arguments: str, **variables: str) -> None:
        subprocess.run([str(Path(programs) / program), *arguments], env=environment | variables, check=True)

    prepared = root / "nnUNet_preprocessed" / name
    if not (prepared / "splits_final.json").exists():
        shutil.rmtree(root / "nnUNet_raw" / name, ignore_errors=True)
        write_raw(cases, root / "nnUNet_raw" / name)
        run("nnUNetv2_plan_and_preprocess", "-d", str(NUMBER), "-c", "3d_fullres", "-np", "2", "-npfp", "2")
        parts = [{"train": list(split.train), "val": list(split.val)} for split in splits]
        atomic_write(prepared / "splits_final.json", json.dumps(parts))
    tables, tolerance = [], cfg.inference.nsd_tolerance_mm
    for fold, split in enumerate(splits):
        result = root / "nnUNet_results" / name / f"{TRAINER}__nnUNetPlans__3d_fullres" / f"fold_{fold}"
        if not (result / "validation/summary.json").exists():
            run(
                "nnUNetv2_train",
                str(NUMBER),
                "3d_fullres",
                str(fold),
                "-device",
                "cpu",
                "-tr",
                TRAINER,
                nnUNet_n_proc_DA="0",
            )
        tables.append(scores(cases, split.val, result / "validation", tolerance))
    said = (
        f"# nnU-Net 2.8, 3d_fullres, on {cases.name}, out of fold; {minutes} processor minutes a fold, trained once.\n"
        "# The learning rate falls over these minutes; augmentation in the training thread; mirroring at test time.\n"
        "# One thread, float32, as nnU-Net computes without a GPU.\n"
        "# Made by python -m benchmarks.nnunet.\n"
    )
    atomic_write(Path(file), said + pd.concat(tables).round(5).to_csv(index=False))
    print(pd.concat(tables).groupby("class")[["dice", "nsd", "hd95_mm"]].mean())


if __name__ == "__main__":
    main()
