"""A trained network with its pre- and postprocessing, loaded from a run's folder, without Hydra or MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from torch import nn

from seg.config.build import allowing
from seg.data.cases import Case
from seg.data.fingerprint import Fingerprint
from seg.data.nifti import write_label
from seg.data.plan import Plan
from seg.data.preprocess import prepare_case
from seg.engine.build import build_network
from seg.engine.checkpoint import load_weights
from seg.engine.computing import as_it_began, laid_out
from seg.engine.device import choose_device, choose_precision
from seg.engine.inference import Predict, case_predictor, restore
from seg.records.folder import RunFolder


@dataclass(frozen=True)
class Prediction:
    """The mask of one image, on the image's own grid."""

    mask: np.ndarray  # (X, Y, Z), values as in the label files of the training's data set
    classes: Mapping[str, int]  # name → value, background first
    voxel_ml: float
    like: Path  # the image

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each class but the background, in millilitres."""
        return {name: float((self.mask == value).sum()) * self.voxel_ml for name, value in [*self.classes.items()][1:]}

    def save(self, path: str | Path) -> None:
        """Writes the mask as NIfTI (.nii or .nii.gz), with the image's affine and codes."""
        write_label(Path(path), self.mask, like=self.like)


@dataclass(frozen=True)
class Predictor:
    """Predicts as a run did in its own test, bit for bit on the same processor.

    ``predictor = Predictor.load("outputs/runs/run_a1b2c3d4")`` once; then ``predictor("scan.nii").save("mask.nii")``
    """

    cfg: DictConfig  # of the run
    classes: Mapping[str, int]  # name → value in label files, background first
    channels: tuple[str, ...]
    plan: Plan
    network: nn.Module
    predict: Predict

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto", trusted: Sequence[str] = ()) -> "Predictor":
        """The predictor of a run that has a checkpoint.

        Args:
            run: the run's folder, ``outputs/runs/run_…``.
            device: auto, cpu, cuda or mps. Half precision becomes the one that this device supports.
            trusted: packages of your own that may build the network, besides what a file of ``conf/`` names.

        Raises:
            DataError: the folder lacks a file, or holds a damaged one.
            ConfigError: its network is from a package that is not trusted.
        """
        folder = RunFolder.at(Path(run))
        cfg, plan = folder.read_config(), folder.read(folder.plan, Plan.from_json)
        prints = folder.read(folder.fingerprint, Fingerprint.from_json)
        where = choose_device(device, 0)
        precision = as_it_began(folder, choose_precision("auto", where))
        with allowing(trusted):
            network = build_network(cfg, plan, len(prints.channels), len(prints.classes))
        load_weights(folder.chosen(cfg.inference.checkpoint), network)
        laid_out(network, precision)
        predict = case_predictor(cfg, plan, precision)
        return cls(cfg, prints.classes, prints.channels, plan, network.eval(), predict)

    def __call__(self, *images: str | Path) -> Prediction:
        """The mask of one image: one file per channel, or one file with the channels on its fourth axis.

        Raises:
            DataError: a file cannot be read, or there are not as many channels as in the training.
        """
        files = tuple(map(Path, images))
        image, _, geometry = prepare_case(Case(files[0].name, "", files, None), tuple(self.classes.values()), self.plan)
        indices = restore(self.predict(self.network, image), geometry)
        voxel_ml = float(np.prod(geometry.ras_spacing_mm)) / 1000
        return Prediction(np.asarray([*self.classes.values()])[indices], self.classes, voxel_ml, files[0])
