"""What has to be done before and after an exported network, which by itself knows windows and logits only."""

from dataclasses import asdict

from seg.data.plan import ChannelNorm, Plan
from seg.data.preprocess import ANISOTROPY
from seg.deploy.package import Json, Package
from seg.errors import times

FORMAT = 1
_OUTSIDE = "Then set to 0, in every channel, what is 0 in all of them, unless it is enclosed by voxels that are not."


def instructions(package: Package, kind: str) -> Json:
    """The content of ``contract.json``: the file's input and output, each step around it, and all of ``model.json``."""
    plan, channels = package.plan, len(package.channels)
    return {
        "format": FORMAT,
        "file": f"network.{kind}",
        "input": {"name": "image", "dtype": "float32", "shape": ["batch", channels, *plan.patch]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", package.outputs, *plan.patch]},
        "before": _before(package),
        "after": _after(package),
        "check_your_own_steps": (
            "example.nii.gz after the steps before is 'prepared' in example_steps.npz, up to 0.001. Its last window is "
            "'window', and 'every_fourth_logit' the network's answer to it along each axis. example_mask.nii.gz is the "
            "mask after all steps."
        ),
        "classes": package.classes,
        "regions": package.regions,
        "channels": package.channels,
        "plan": asdict(plan),
        "settings": package.settings,
        "computing": package.computing,
        "origin": package.origin,
        "package": package.id,
    }


def _before(package: Package) -> list[str]:
    plan, settings = package.plan, package.settings["inference"]
    return [
        "Turn the axes to RAS+ (the first to the right, then anterior, superior), by flips and swaps alone.",
        "Crop to the smallest box that holds every voxel that is not 0 in some channel.",
        *(_normalised(name, norm) for name, norm in zip(package.channels, plan.normalization, strict=True)),
        *[_OUTSIDE] * any(norm.inside for norm in plan.normalization),
        f"Resample to voxels of {times(plan.spacing_mm)} mm (unless they are so within 0.1 %): "
        "round(n * own / planned) voxels an axis over the same extent, by cubic splines: "
        "scipy.ndimage.zoom(order=3, mode='nearest', grid_mode=True). "
        f"Where one axis of the file, or of the plan, is more than {ANISOTROPY:g} times as coarse as another, take "
        "along it the nearest slice, number int((i + 0.5) * old / new), after the other two.",
        f"Cut windows of {_window(plan)}: pad with 0 what is smaller, alike on both sides; along each axis "
        f"start every max(1, int(size * (1 - {settings['overlap']:g}))) voxels, and flush with the end.",
    ]


def _normalised(name: str, norm: ChannelNorm) -> str:
    if norm.kind == "ct":
        return (
            f"Channel {name}: clip to {norm.low!r} and {norm.high!r}, subtract {norm.mean!r}, divide by {norm.std!r}."
        )
    return (
        f"Channel {name}: subtract the mean and divide by the standard deviation of its own voxels that are not 0, "
        "within that box (of all, where those have one value)."
    )


def _window(plan: Plan) -> str:
    if len(plan.patch) == 3:
        return f"{times(plan.patch)} voxels"
    return f"{times(plan.patch)} voxels, each slice across axis {'xyz'[plan.slice_axis]} by itself"


def _after(package: Package) -> list[str]:
    settings, steps = package.settings["inference"], []
    if settings["mirror"] and package.settings["augmentation"]["mirror_axes"]:
        steps.append(
            f"Average the logits over windows mirrored along each combination of the axes "
            f"{package.settings['augmentation']['mirror_axes']}, mirrored back."
        )
    steps.append(
        "Average the logits where windows overlap, weighted by a Gaussian at the window's centre with a deviation of "
        "1/8 of its sides, at least 0.001 of its top."
    )
    if settings["shifts"]:
        log = "log(p / (1 - p)), p within 1e-6 and 1 - 1e-6" if package.regions else "log(p), p at least 1e-30"
        steps.append(
            "Repeat it with all windows shifted by 0 and 1 voxel along each axis of the window: along one where the "
            "volume was padded to the window, a voxel of 0 moves from its end to its start; along another, a voxel of "
            "0 is added at both ends. Average each voxel's probabilities, without what was added. "
            f"From here on the logits are {log}, of that mean p."
        )
    taken = "take the class with the largest logit"
    if package.regions:
        taken = (
            "take the last of the regions whose logit is above 0 (a probability, by the sigmoid, above 0.5), region k "
            "as class k, and background where there is none"
        )
    return [
        *steps,
        "Resample the logits, not the mask, to the cropped box: linearly, and along the coarse axis, where there is "
        f"one, by the nearest slice. Then {taken}, and background outside of the box.",
        f"Write class k as the k-th of the values {[*package.classes.values()]}, on the axes of the file.",
    ]
