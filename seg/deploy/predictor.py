"""A trained network with its pre- and postprocessing, from a package or a run, without Hydra or MLflow."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from seg.config.build import allowing
from seg.config.content import first_line
from seg.data.checks import TILTED
from seg.data.fingerprint import Intensity, intensity
from seg.data.grids import sheared
from seg.data.nifti import from_ras, ras_axis
from seg.data.preprocess import Geometry, Scan, norms_of, prepare_scan, read_scan
from seg.data.volumes import ALONE, ending, is_picture, write_label
from seg.deploy.findings import Expected, Finding, Observed, Risk, expected_dice, findings, no_promise, pieces, risk_of
from seg.deploy.maps import Maps, disagreement, probabilities
from seg.deploy.package import Package, is_package, levels, made_up, normalised, read
from seg.engine.build import build_network
from seg.engine.computing import as_before, laid_out
from seg.engine.decision import Decided, decide
from seg.engine.device import Precision, choose_device, choose_precision, machine
from seg.engine.inference import Predict, Slices, longest, mean_probability, on_grid
from seg.engine.predictors import case_predictor
from seg.errors import ConfigError, DataError, SegError
from seg.models import Network
from seg.records.folder import RunFolder
from seg.regions import label_map

NO_MAPS = Maps()
_ROUNDING, _HALF_ROUNDING = 1e-3, 0.1  # of logits on another machine, as a share of their norm


@dataclass(frozen=True)
class Prediction:
    """The mask of one image, on the image's own grid."""

    mask: np.ndarray  # (X, Y, Z), values as in the label files of the training's data set
    classes: Mapping[str, int]  # name → value, background first
    like: Path  # the image
    observed: Observed
    findings: tuple[Finding, ...] = ()  # what is unusual, the most worrying first
    expected_dice: Mapping[str, Expected] = field(default_factory=dict)  # by class; none where the scan is unusual
    no_promise: str = ""  # why no Dice, or no interval of it, can be promised; nothing where it can

    @property
    def volumes_ml(self) -> Mapping[str, float]:
        """Volume of each class but the background, in millilitres."""
        return self.observed.volumes_ml

    @property
    def risk(self) -> Risk:
        """How much the findings should worry: low, medium or high."""
        return risk_of(self.findings)

    def save(self, path: str | Path) -> None:
        """Writes the mask on the image's own grid, in the format that the ending names.

        Raises:
            ConfigError: the ending is not that of a format that is written.
        """
        ends = [end for end in ALONE if is_picture(self.like) or not is_picture(Path(end))]
        if ending(Path(path)).lower() not in ends:
            raise ConfigError(f"{path} must end in {', '.join(ends)}.")
        write_label(Path(path), self.mask, like=self.like)


@dataclass(frozen=True)
class Predictor:
    """Predicts as a run did in its own test, bit for bit on the same processor.

    ``predictor = Predictor.load("outputs/runs/run_a1b2c3d4")`` once; then ``predictor("scan.nii").save("mask.nii")``
    """

    package: Package
    network: Network
    precision: Precision
    predict: Predict

    @classmethod
    def load(cls, place: str | Path, *, device: str = "auto", trusted: Sequence[str] = ()) -> "Predictor":
        """The predictor of a package, of a run that has a checkpoint, or of a version in MLflow's registry.

        Args:
            place: a package, which is a folder or a zip; a run's folder, ``outputs/runs/run_…``; or
                ``hippocampus@champion`` or ``hippocampus/3`` of the registry at MLFLOW_TRACKING_URI, otherwise in
                ``outputs``.
            device: auto, cpu, cuda or mps. Half precision becomes the one that this device supports.
            trusted: packages of your own that may build the network, besides what a file of ``conf/`` names.

        Raises:
            DataError: a file is missing or damaged, the network cannot be built as it says, or answers otherwise than
                when it was packed.
            ConfigError: its network is from a package that is not trusted, or the registry does not have it.
        """
        from seg.deploy.registry import fetched, is_reference  # which reads packages, too

        path = Path(place)
        if not path.exists() and is_reference(str(place)):
            path = fetched(str(place))
        if not path.exists():
            raise DataError(f"There is no {path}. Give a package, which is a folder or a zip, or a run's folder.")
        package = read(path) if is_package(path) else Package.of_run(RunFolder.at(path))
        cfg = OmegaConf.create(package.settings)
        precision = as_before(package.computing, choose_precision("auto", choose_device(device, 0)))
        try:
            with allowing(trusted):
                network = build_network(cfg, package.plan, len(package.channels), package.outputs)
            network.load_state_dict(package.weights)
            laid_out(network, precision)
            predict = case_predictor(cfg, package.plan, precision, package.within)
            predictor = cls(package, network.eval(), precision, predict)
        except SegError:
            raise
        except Exception as error:  # of PyTorch, MONAI and OmegaConf, by what was altered since
            said = f"{type(error).__name__}: {first_line(error)}"
            raise DataError(f"{place}: its network cannot be built ({said}). Take another copy.") from error
        if fault := predictor._fault():
            raise DataError(f"{place} does not answer as it did when it was packed: {fault}. Take another copy.")
        return predictor

    @property
    def classes(self) -> Mapping[str, int]:
        """Name → value in label files, background first."""
        return self.package.classes

    def __call__(self, *images: str | Path) -> Prediction:
        """The mask of one image: one file per channel, or one file with the channels on its fourth axis.

        Raises:
            DataError: a file cannot be read, or there are not as many channels as in the training.
        """
        return predict_together([self], *images)

    def store(self, place: str | Path) -> Package:
        """Packs the network: writes a new folder, or a zip, that ``load`` reads and checks; see ``seg.deploy.package``.

        Raises:
            DataError: there is something at ``place`` already.
        """
        return replace(self.package, example=self._answer(), answered_by=self._how()).store(Path(place))

    @torch.no_grad()
    def _answer(self) -> dict[str, Tensor]:
        """What the network makes of a small made-up image."""
        sides = zip(self.package.plan.patch, self.network.multiple, strict=True)
        image = made_up(len(self.package.channels), tuple(min(side, 2 * by) for side, by in sides))
        with self.precision.autocast():
            logits = self.network(image[None].to(self.precision.device))[0].float().cpu()
        some = logits[(slice(None), *[slice(None, None, 4)] * (logits.ndim - 1))]
        return {"mask": label_map(logits, self.package.within).to(torch.uint8), "logits": some.contiguous()}

    def _how(self) -> str:
        return f"{machine(self.precision.device)}, {self.precision.name}, {self.precision.layout}"

    def _fault(self) -> str | None:
        """How its answer differs from the stored one: on the same machine in any voxel, elsewhere beyond rounding."""
        expected = self.package.example
        if not expected:
            return None
        found = self._answer()
        if self._how() == self.package.answered_by:
            differing = int((found["mask"] != expected["mask"]).sum())
            return f"{differing} voxels of its example have another class" if differing else None
        share = float((found["logits"] - expected["logits"]).norm() / expected["logits"].norm())
        exact = "fp32" == self.precision.name == self.package.computing["precision"]
        allowed = _ROUNDING if exact else _HALF_ROUNDING
        if share <= allowed:
            return None
        return f"the logits of its example differ by {share:.2%}, and at most {allowed:.1%} can be rounding"


def predict_together(members: Sequence[Predictor], *images: str | Path, maps: Maps = NO_MAPS) -> Prediction:
    """The mask of one image by one network, or by the mean of the class probabilities of several.

    Args:
        members: of the same classes and channels.
        images: as of ``Predictor``.
        maps: to be written, too.

    Raises:
        DataError: as ``Predictor``.
    """
    if not (members and images):
        raise DataError("A prediction takes one network or more, and one image file or more.")
    return compute(members, read_for(members, tuple(map(Path, images))), maps)


@dataclass(frozen=True)
class Ready:
    """A scan that is read and prepared."""

    files: tuple[Path, ...]
    scan: Scan
    inputs: tuple[tuple[np.ndarray, Geometry], ...]  # one for each network


def read_for(members: Sequence[Predictor], files: Sequence[Path]) -> Ready:
    """Reads a scan and prepares it for each network.

    Raises:
        DataError: a file cannot be read, or a network could make nothing of it.
    """
    scan = read_scan(files, len(members[0].package.channels))
    plans = {(plan.spacing_mm, plan.normalization): plan for plan in (member.package.plan for member in members)}
    prepared = {key: prepare_scan(scan, plan) for key, plan in plans.items()}  # once for networks that see it alike
    inputs = tuple(prepared[plan.spacing_mm, plan.normalization] for plan in (m.package.plan for m in members))
    if any(channel.min() == channel.max() for channel in inputs[0][0]):
        raise DataError(f"{scan.name}: every voxel of a channel has the same value, so there is nothing to see.")
    if sheared(scan.original_affine) and not all(member.package.settings["data"]["allow_shear"] for member in members):
        raise DataError(f"{scan.name}: {TILTED}.")
    return Ready(tuple(files), scan, inputs)


def compute(members: Sequence[Predictor], ready: Ready, maps: Maps = NO_MAPS) -> Prediction:
    """The mask of a scan, and what is to be known of both."""
    scan, package = ready.scan, members[0].package
    # Maps are written slice by slice, in the order of the file.
    axis = ras_axis(scan.original_affine, 2)[0] if maps.wanted else longest(ready.inputs[0][0])
    found = [
        on_grid(member.predict(member.network, image, axis=axis), geometry)
        for member, (image, geometry) in zip(members, ready.inputs, strict=True)
    ]
    decided = _decided(found, ready.inputs[0][1], maps, package.outputs)
    if len(members) > 1:  # whose scores and probabilities together are those of no scored case
        package = replace(package, scores={}, confidence={})
    observed = _observed(package, scan, decided)
    unusual = tuple(findings(package, observed))
    mask = from_ras(_smallest([*package.classes.values()])[decided.indices], scan.original_affine)
    expected = expected_dice(package.scores) if risk_of(unusual) == "low" else {}
    why = (
        "the Dice cannot be promised: these networks were never scored together"
        if len(members) > 1
        else no_promise(package.scores, unusual)
    )
    return Prediction(mask, package.classes, ready.files[0], observed, unusual, expected, why)


def _decided(found: Sequence[Slices], geometry: Geometry, maps: Maps, outputs: int) -> Decided:
    with ExitStack() as files:
        disagree = files.enter_context(disagreement(maps.disagreement, geometry)) if maps.disagreement else None
        slices = found[0] if len(found) == 1 else mean_probability(found, disagree)
        if maps.probabilities:
            slices = files.enter_context(probabilities(maps.probabilities, slices, geometry, outputs))
        return decide(slices, geometry)


def _observed(package: Package, scan: Scan, decided: Decided) -> Observed:
    names, voxel_ml = [*package.classes], float(np.prod(scan.spacing_mm)) / 1000
    inside, channels = decided.indices > 0, list[Intensity]()
    if inside.any():
        channels = [intensity(channel[inside]) for channel in scan.image]
    return Observed(
        scan.image.shape[1:],
        scan.spacing_mm,
        scan.oriented,
        {name: float(decided.voxels[k]) * voxel_ml for k, name in enumerate(names) if k},
        {names[k]: found for k, found in pieces(decided.indices, len(names), package.within).items()},
        decided.by_class(names),
        [*map(levels, channels)],
        normalised(channels, norms_of(scan, package.plan)),
        scan.unit,
    )


def _smallest(values: Sequence[int]) -> np.ndarray:
    """In the smallest type that holds them, for an array of the size of a scan has it, too."""
    return np.array(values, np.result_type(*map(np.min_scalar_type, values)))
