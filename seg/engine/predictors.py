"""How a run predicts whole volumes, as its section ``inference`` says."""

import math
import time
from collections.abc import Iterator
from functools import partial

from omegaconf import DictConfig
from torch import Tensor

from seg.data.plan import Plan
from seg.engine.device import Precision
from seg.engine.inference import Predict, Windows, over_shifts, predict_slices
from seg.regions import Regions


def _windows(cfg: DictConfig, plan: Plan, precision: Precision, within: Regions | None) -> Windows:
    at_once = cfg.inference.batch_size
    if at_once == "auto":
        at_once = max(1, min(32, cfg.data.patch_voxels // math.prod(plan.patch)))
    return Windows(
        plan.patch,
        slice_axis=plan.slice_axis,
        overlap=cfg.inference.overlap,
        mirror_axes=tuple(cfg.augmentation.mirror_axes) if cfg.inference.mirror else (),
        batch_size=at_once,
        device=precision.device,
        precision_context=precision.autocast,
        within=within,
    )


def window_predictor(cfg: DictConfig, plan: Plan, precision: Precision, within: Regions | None) -> Predict:
    """Sliding-window prediction as the ``inference`` section says; ``within`` of regions, as in ``seg.regions``."""
    return partial(predict_slices, windows=_windows(cfg, plan, precision, within))


def case_predictor(cfg: DictConfig, plan: Plan, precision: Precision, within: Regions | None) -> Predict:
    """As the validation predicts, and over shifts where ``inference.shifts`` asks for it."""
    if not cfg.inference.shifts:
        return window_predictor(cfg, plan, precision, within)
    axes = [axis for axis in range(3) if cfg.dims == 3 or axis != plan.slice_axis]
    return partial(over_shifts, windows=_windows(cfg, plan, precision, within), axes=axes)


def clocked(items: Iterator[Tensor], seconds: list[float]) -> Iterator[Tensor]:
    """The items; and how long the making of those taken took, as one more of ``seconds``."""
    place, begin = len(seconds), time.perf_counter()
    seconds.append(0.0)
    for item in items:
        seconds[place] += time.perf_counter() - begin
        yield item
        begin = time.perf_counter()
