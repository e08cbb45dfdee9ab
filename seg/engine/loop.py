"""The training loop: steps until the budget is spent, an epoch's numbers at each epoch's end.

It knows plain objects only: networks, tensors, numbers, and the four collaborators of :class:`Hooks`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from seg.data.sampling import Batch
from seg.engine.device import Precision, memory_mib
from seg.engine.distributed import from_leader, gathered, without_sync
from seg.engine.progress import Budget, Progress
from seg.errors import InterruptedRunError, SegError
from seg.regions import Regions, label_map
from seg.schedulers import advance

log = logging.getLogger(__name__)
_FIX = "Lower optimizer.lr, set trainer.clip_norm, or check the cases with check=true. The last checkpoint is kept."
_NEARLY = 0.9  # share of a budget after which its end surprises nobody
_DECIDED = 10  # the step after which it is known whether minutes or steps end a run that has both
_LEAST_SCALE = 1e-3  # of the loss in float16: a gradient that is not finite with it never will be
_DICE_EVERY = 10  # steps between two updates of the training Dice, which costs about 2 % of a step


@dataclass
class Training:
    """All that changes while a run trains."""

    network: nn.Module
    model: nn.Module  # the network, or its distributed wrapper
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    progress: Progress = field(default_factory=Progress)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated: the weight average where there is one."""
        return self.average.module if self.average is not None else self.network


@dataclass(frozen=True)
class Hooks:
    """The loop's collaborators."""

    validate: Callable[[nn.Module], dict[str, float]] | None  # → val_dice, val_loss, … ; None: no validation part
    on_step: Callable[[Progress, float], None]  # progress, and the loss over all processes
    on_epoch: Callable[[dict[str, float]], bool]  # an epoch's numbers; True ends the run
    save: Callable[[str], None]  # "last" or "best"
    interrupted: Callable[[], bool]


@dataclass(frozen=True)
class Settings:
    """The constants of a step."""

    precision: Precision
    samples: int  # patches in a step, over all processes
    accumulate: int  # batches in a step
    clip_norm: float | None
    validate_every: int
    save_every: int
    stop: str | None = None  # "plateau"
    within: Regions | None = None  # of regions, as in seg.regions


def fit(
    training: Training,  # is changed; if it was loaded from a checkpoint, the run continues from there
    budget: Budget,
    batches: Iterator[Batch],  # endless; image (B,C,*S) float32, label (B,*S) class indices, case names
    loss: nn.Module,  # loss(logits, label) -> scalar
    settings: Settings,
    hooks: Hooks,
) -> None:
    """Trains until the budget is spent, a hook ends the run, or it is interrupted.

    Raises:
        InterruptedRunError: after saving ``last``.
        SegError: the loss or its gradient is not finite.
    """
    progress = training.progress
    begin = time.perf_counter() - progress.seconds
    epoch_begin, epoch_step = time.perf_counter(), progress.step
    training.model.train()
    while not (progress.ended or budget.spent(progress)):
        value, fault = _gradients(training, [next(batches) for _ in range(settings.accumulate)], loss, settings)
        # One exchange a step: all processes share rank 0's clock, and stop together.
        told = gathered((time.perf_counter() - begin, hooks.interrupted(), fault, value))
        if faults := [fault for _, _, fault, _ in told if fault]:
            raise SegError(faults[0])
        _update(training, settings)
        progress.step += 1
        progress.lr = training.optimizer.param_groups[0]["lr"]
        progress.seconds = told[0][0]
        if progress.step == _DECIDED:
            progress.by_clock = budget.clock_ends_first(progress)
        advance(training.scheduler, budget.schedule_step(progress))
        hooks.on_step(progress, fmean(value for *_, value in told))
        if progress.step % budget.steps_per_epoch == 0 or budget.spent(progress):
            _end_epoch(training, budget, settings, hooks, progress.step - epoch_step, epoch_begin)
            epoch_begin, epoch_step = time.perf_counter(), progress.step
        if any(interrupted for _, interrupted, *_ in told):
            progress.loss_sum, progress.loss_steps, progress.counts = _pooled(progress)
            hooks.save("last")
            raise InterruptedRunError(f"stopped after step {progress.step}")


def _gradients(
    training: Training, batches: list[Batch], loss: nn.Module, settings: Settings
) -> tuple[float, str | None]:
    """Gradients of one optimizer step over ``batches``; returns the mean loss of this process, and what is wrong."""
    progress, device, fault = training.progress, settings.precision.device, None
    total = 0.0
    for number, batch in enumerate(batches, 1):
        image = batch["image"].to(device, non_blocking=True)
        label = batch["label"].to(device, non_blocking=True)
        with without_sync(training.model, last=number == len(batches)):
            with settings.precision.autocast():
                logits = training.model(image)
            value = loss(logits, label)
            training.scaler.scale(value / len(batches)).backward()
        total += value.item() / len(batches)
        if not math.isfinite(total) and fault is None:
            fault = f"The loss is {total} at step {progress.step + 1}, on the cases {', '.join(batch['case'])}. {_FIX}"
    progress.loss_sum += total
    progress.loss_steps += 1
    if progress.loss_steps % _DICE_EVERY == 1:
        _count_overlap(progress, logits[0] if isinstance(logits, list) else logits, label, settings.within)
    return total, fault


def _update(training: Training, settings: Settings) -> None:
    """One optimizer step with the gradients at hand."""
    training.scaler.unscale_(training.optimizer)
    weights = list(training.network.parameters())
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    skips = training.scaler.is_enabled() and training.scaler.get_scale() > _LEAST_SCALE
    if not norm.isfinite() and not skips:  # a step in float16 that is skipped is done again with a lower scale
        raise SegError(f"The gradient is not finite at step {training.progress.step + 1}. {_FIX}")
    if settings.clip_norm is not None and norm > settings.clip_norm:
        nn.utils.clip_grads_with_norm_(weights, settings.clip_norm, norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average is not None:
        training.average.update_parameters(training.network)


@torch.no_grad()
def _count_overlap(progress: Progress, logits: Tensor, label: Tensor, within: Regions | None) -> None:
    """Adds this batch to the epoch's training Dice. logits (B,K,*S), label (B,*S)."""
    classes = logits.shape[1] if within is None else 1 + len(within)
    pred = label_map(logits, within, 1).flatten()
    label = label.flatten().long()
    known = label < classes
    label, pred = label * known, pred * known  # what nobody annotated counts as background found
    table = torch.bincount(label * classes + pred, minlength=classes * classes).reshape(classes, classes)
    if within is None:
        both, each = table.diagonal()[1:], (table.sum(0) + table.sum(1))[1:]
    else:
        both = torch.stack([table[[*own]][:, [*own]].sum() for own in within])
        each = torch.stack([table[[*own]].sum() + table[:, [*own]].sum() for own in within])
    counts = torch.cat([2 * both, each]).tolist()
    progress.counts = [a + b for a, b in zip(progress.counts or [0] * len(counts), counts, strict=True)]


def _end_epoch(training: Training, budget: Budget, settings: Settings, hooks: Hooks, steps: int, begin: float) -> None:
    """Validates, notes the numbers of an epoch of ``steps`` steps that began at ``begin``, saves."""
    progress = training.progress
    progress.epoch += 1
    speed = settings.samples * steps / (time.perf_counter() - begin)
    numbers = _epoch_numbers(training, settings) | {"samples_per_second": speed}
    done = budget.done(progress)
    if hooks.validate is not None and (done >= 1 or progress.epoch % settings.validate_every == 0):
        start = time.perf_counter()
        numbers |= hooks.validate(training.evaluated)
        progress.validation_seconds = from_leader(time.perf_counter() - start)
        progress.seconds += progress.validation_seconds
        progress.by_clock = progress.by_clock or (progress.step > _DECIDED and budget.clock_ends_first(progress))
        if done < _NEARLY and budget.spent(progress):
            log.warning(
                "The run ends at %.0f %% of its schedule: a validation took %.0f s, and no second one fits into the "
                "minutes. Raise trainer.max_minutes, or trainer.validate_every.",
                100 * done,
                progress.validation_seconds,
            )
        if hasattr(training.scheduler, "report"):
            training.scheduler.report(numbers["val_dice"])
    numbers["epoch_seconds"] = time.perf_counter() - begin
    progress.history.append(numbers)
    if settings.stop == "plateau" and progress.plateau is None and budget.may_plateau(progress):
        progress.plateau = progress.step, budget.done(progress)
    improved = "val_dice" in numbers and (progress.best is None or numbers["val_dice"] > progress.best)
    if improved:
        progress.best, progress.best_epoch = numbers["val_dice"], progress.epoch
    progress.ended = hooks.on_epoch(numbers)
    if improved:
        hooks.save("best")
    # `last` never lies behind `best`: a run resumed from it would not know the best it had.
    if improved or progress.ended or budget.spent(progress) or progress.epoch % settings.save_every == 0:
        hooks.save("last")


def _epoch_numbers(training: Training, settings: Settings) -> dict[str, float]:
    progress = training.progress
    loss_sum, loss_steps, counts = _pooled(progress)
    classes = len(counts) // 2
    dice = [a / b for a, b in zip(counts[:classes], counts[classes:], strict=True) if b]
    numbers = {
        "epoch": progress.epoch,
        "step": progress.step,
        "train_loss": loss_sum / max(1, loss_steps),
        "lr": progress.lr,
        "memory_mib": memory_mib(settings.precision.device),
    }
    if dice:
        numbers["train_dice"] = sum(dice) / len(dice)
    progress.loss_sum, progress.loss_steps, progress.counts = 0.0, 0, []
    return numbers


def _pooled(progress: Progress) -> tuple[float, int, list[int]]:
    """Sum and number of the losses and the counts of the training Dice of an epoch so far, over all processes."""
    sums, steps, counts = zip(*gathered((progress.loss_sum, progress.loss_steps, progress.counts)), strict=True)
    return sum(sums), sum(steps), [sum(column) for column in zip(*counts, strict=True)]
