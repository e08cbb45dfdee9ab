"""Regions: structures that overlap, each a set of label values, as nnU-Net has them; and what a network says of them.

A label map holds one class index a voxel. Of a data set with regions it is that of the last region, in their order,
that the voxel is in; so is a prediction, nnU-Net's rule. ``within`` says for each region which indices are in it. It
is None for ordinary classes, of which a voxel has one.

Source: Isensee et al., nnU-Net for Brain Tumor Segmentation, BrainLes 2020, doi:10.1007/978-3-030-72087-2_11.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seg.errors import ConfigError, few, together

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Labels = TypeVar("Labels", np.ndarray, Tensor)

Regions = tuple[tuple[int, ...], ...]
Named = list[tuple[str, object]]


def indices_within(values: Sequence[int], regions: Regions | None) -> Regions | None:
    """The class indices that are in each of ``regions``, sets of label values; ``values`` are those of the indices."""
    if regions is None:
        return None
    return tuple(tuple(index for index, value in enumerate(values) if value in region) for region in regions)


def among(label: "Labels", values: int | Sequence[int]) -> "Labels":
    """Where ``label`` is one of ``values``, of which there is one at least; bool."""
    first, *more = [values] if isinstance(values, int) else values
    return reduce(lambda found, value: found | (label == value), more, label == first)


def inside(label: "Labels", index: int, within: Regions | None) -> "Labels":
    """Where a label map has the class, or is in the region, of this index (1, 2 …); bool."""
    return among(label, index if within is None else within[index - 1])


def structures(count: int, within: Regions | None) -> Regions:
    """The class indices of each of ``count`` classes, or regions."""
    return tuple((index,) for index in range(1, count + 1)) if within is None else within


def probabilities(logits: "Tensor", within: Regions | None, dim: int = 0) -> "Tensor":
    """Of each class, background first, with the sum 1; or of each region by itself. Channels are on axis ``dim``."""
    return logits.softmax(dim) if within is None else logits.sigmoid()


def label_map(scores: "Tensor", within: Regions | None, dim: int = 0, *, threshold: float = 0.0) -> "Tensor":
    """The class index of each voxel, int64: of the largest score, or of the last region above ``threshold``.

    Args:
        scores: logits or probabilities, with the channels on axis ``dim``.
        within: as above.
        dim: of the channels.
        threshold: 0 for logits, 0.5 for probabilities.
    """
    if within is None:
        return scores.max(dim).indices  # argmax takes several times as long on a CPU
    numbers = scores.new_tensor(range(1, len(within) + 1)).reshape(-1, *[1] * (scores.ndim - dim - 1))
    return ((scores > threshold) * numbers).amax(dim).long()


def regions_of(named: Named, order: object, where: Path) -> tuple[Named, Regions]:
    """The labels of a ``dataset.json`` in which regions are lists, or single labels: background, ignore, regions.

    Args:
        named: names and values, in the order of the file.
        order: ``regions_class_order``, the label that each region is written with.
        where: the file.

    Returns:
        The same names, a region with the label that it is written with; and the labels of each region.

    Raises:
        ConfigError: a region is no set of labels, or regions could not be told from the label map that they are
            written into, with what would do.
    """
    alone = [(name, value) for name, value in named if name.casefold() == "ignore" or value in (0, [0])]
    listed = [
        (name, value if isinstance(value, list) else [value]) for name, value in named if (name, value) not in alone
    ]
    together(
        ConfigError,
        [
            f"{where}: the region '{name}' is {value!r}; it must be a list of labels, which are integers other than 0."
            for name, value in listed
            if not value or not all(type(one) is int and one for one in value)
        ],
    )
    names, sets = [name for name, _ in listed], tuple(tuple(sorted({*value})) for _, value in listed)
    if fault := _fault(names, sets, order):
        raise ConfigError(f"{where}: {fault}")
    assert isinstance(order, list)
    first = [(name, 0 if value == [0] else value) for name, value in alone]
    return [*first, *zip(names, order, strict=True)], sets


def _fault(names: Sequence[str], sets: Sequence[tuple[int, ...]], order: object) -> str | None:
    """Why the regions could not be told from a label map that is written in this order; None where they can."""
    if twice := [names[n] for n, own in enumerate(sets) if own in sets[:n]]:
        return f"{few(twice)} has the labels of another region. Leave one of the two out."
    fix = _right_order(names, sets)
    if not isinstance(order, list) or len(order) != len(sets) or not all(type(one) is int for one in order):
        seen = "missing" if order is None else repr(order)
        rule = f"it lists the label that each of the {len(sets)} regions is written with, in the order of the regions"
        return f"regions_class_order is {seen}; {rule}. {fix}"
    for name, own, value in zip(names, sets, order, strict=True):
        if value not in own:
            return f"regions_class_order writes '{name}' as {value}, which is none of its labels {[*own]}. {fix}"
    if not (lost := _lost(sets, order)):
        return None
    seen = f"each region is written over those before it, and with regions_class_order {order} the labels {lost} end up"
    return f"{seen} in other regions than their own. {fix}"


def _right_order(names: Sequence[str], sets: Sequence[tuple[int, ...]]) -> str:
    """What to write: the larger regions first, each with a label that no smaller one has; or that nothing will do."""
    best = sorted(range(len(sets)), key=lambda number: -len(sets[number]))
    ranked = [sets[number] for number in best]
    order = [next((one for one in own if _last(ranked, one) == k), own[0]) for k, own in enumerate(ranked)]
    if not _lost(ranked, order):
        labels = ", ".join(f'"{names[n]}": {sets[n][0] if len(sets[n]) == 1 else [*sets[n]]}' for n in best)
        return f'Write the larger regions first: {labels}, with "regions_class_order": {order}.'
    one, other = next(
        (one, other)
        for one, other in combinations(range(len(sets)), 2)
        if {*sets[one]} & {*sets[other]} not in ({*sets[one]}, {*sets[other]}, set())
    )
    return (
        f"'{names[one]}' and '{names[other]}' share {sorted({*sets[one]} & {*sets[other]})}, and neither holds the "
        "other: leave one out, or add what they share as a region of its own."
    )


def _last(sets: Sequence[tuple[int, ...]], label: int) -> int:
    return max(number for number, own in enumerate(sets) if label in own)


def _lost(sets: Sequence[tuple[int, ...]], order: Sequence[int]) -> list[int]:
    """Labels that are in other regions once they are written."""

    def regions(label: int) -> list[bool]:
        return [label in own for own in sets]

    labels = sorted({label for own in sets for label in own})
    return [label for label in labels if regions(label) != regions(order[_last(sets, label)])]
