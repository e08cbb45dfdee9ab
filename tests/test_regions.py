"""Structures that overlap: what a data set may say of them, and one rule from a network's answer to a label map."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from seg.data.cases import CaseSet, folder
from seg.data.classes import IGNORE, class_indices, read_classes
from seg.data.fingerprint import CasePrint, Fingerprint
from seg.errors import ConfigError
from seg.metrics import dice, score_case
from seg.regions import label_map

BRATS = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing": 3}
NAMES = ("background", "whole tumour", "tumour core", "enhancing")


def described(folder: Path, labels: object, order: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    path = folder / "dataset.json"
    path.write_text(json.dumps(content | ({"regions_class_order": order} if order is not None else {})))
    return path


def cases(place: Path, labels: object, order: object) -> CaseSet:
    return CaseSet("set", (), ("MRI",), *read_classes(described(place, labels, order)))


def test_a_data_set_with_regions(tmp_path: Path) -> None:
    described(tmp_path, BRATS | {"ignore": 4}, [1, 2, 3])
    for file in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    found = folder(tmp_path)
    assert (found.names, found.values, found.ignore, found.outputs) == (NAMES, (0, 1, 2, 3), 4, 3)
    assert found.within == ((1, 2, 3), (2, 3), (3,))
    assert class_indices(np.array([0, 1, 2, 3, 4]), found.labels, found.ignore).tolist() == [0, 1, 2, 3, IGNORE]


def test_their_order_is_that_of_the_file_and_values_need_not_be_in_order(tmp_path: Path) -> None:
    kits = {"background": 0, "kidney and masses": [1, 2, 3], "masses": [2, 3], "tumour": 2}
    found = cases(tmp_path, kits, [1, 3, 2])
    assert found.values == (0, 1, 3, 2)
    assert class_indices(np.array([0, 1, 2, 3]), found.labels).tolist() == [0, 1, 3, 2]
    assert found.within == ((1, 2, 3), (2, 3), (3,))


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (BRATS, [1, 2, 3]),
        ({"background": 0, "all": [1, 2], "left": 1, "right": 2}, [1, 1, 2]),  # no label is of `all` alone
        ({"background": 0, "a": [1, 2, 5], "b": [3, 4]}, [5, 4]),
        ({"background": [0], "a": [1, 2], "b": [2, 3], "both": [2]}, [1, 3, 2]),
    ],
    ids=["nested", "union", "apart", "overlap with its own region"],
)
def test_what_is_written_lies_in_the_regions_of_the_reference(tmp_path: Path, labels: dict, order: list[int]) -> None:
    found = cases(tmp_path, labels, order)
    reference = np.array([0, *sorted({one for own in found.regions or () for one in own})])
    indices = class_indices(reference, found.labels)
    written = np.array(found.values)[indices]
    assert found.regions
    assert found.within
    for own, within in zip(found.regions, found.within, strict=True):
        assert np.isin(written, own).tolist() == np.isin(reference, own).tolist()
        assert np.isin(indices, within).tolist() == np.isin(reference, own).tolist()
        again = class_indices(written, found.labels)  # a mask that is read is scored as it was before it was written
        assert np.isin(again, within).tolist() == np.isin(indices, within).tolist()


RIGHT = r'"whole tumour": \[1, 2, 3\], "tumour core": \[2, 3\], "enhancing": 3, with "regions_class_order": \[1, 2, 3\]'
FAULTS = {
    "no order": (BRATS, None, "regions_class_order is missing.*" + RIGHT),
    "too short": (BRATS, [1, 2], r"regions_class_order is \[1, 2\].*each of the 3 regions.*" + RIGHT),
    "no numbers": (BRATS, ["1", "2", "3"], "regions_class_order is .*" + RIGHT),
    "another label": (BRATS, [1, 1, 3], r"writes 'tumour core' as 1, which is none of its labels \[2, 3\].*" + RIGHT),
    "wrong value": (BRATS, [2, 3, 3], r"the labels \[1, 2\] end up in other regions.*" + RIGHT),
    "large over small": (dict(reversed(BRATS.items())), [3, 2, 1], r"\[2, 3\] end up in other regions.*" + RIGHT),
    "overlap": ({"a": [1, 2], "b": [2, 3]}, [1, 3], r"'a' and 'b' share \[2\], and neither holds the other"),
    "twice": ({"a": [1, 2], "b": [2, 1]}, [1, 2], "b has the labels of another region"),
    "background": ({"a": [0, 1]}, [1], r"the region 'a' is \[0, 1\]; it must be a list of labels"),
    "empty": ({"a": [], "b": [1, 2]}, [1, 2], r"the region 'a' is \[\]"),
    "ignored": (BRATS | {"ignore": 3}, [1, 2, 3], "'ignore' has the value 3; it must be the highest of all"),
    "name twice": ({"a": [1, 2], " a": 2}, [1, 2], "'a' = 2 appears twice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_regions_that_cannot_be_are_refused_with_what_would_do(tmp_path: Path, fault: str) -> None:
    labels, order, words = FAULTS[fault]
    with pytest.raises(ConfigError, match=words):
        read_classes(described(tmp_path, labels, order))


def test_the_last_region_above_a_half_is_written() -> None:
    """nnU-Net's loop, which paints one region after the other, beside ours."""
    within = ((1, 2, 3), (2, 3), (3,))
    logits = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    painted = torch.zeros(2, 5, 4, dtype=torch.long)
    for number in range(3):
        painted[logits[:, number].sigmoid() > 0.5] = number + 1
    assert painted.unique().tolist() == [0, 1, 2, 3]
    assert label_map(logits, within, 1).equal(painted)
    assert label_map(logits.sigmoid(), within, 1, threshold=0.5).equal(painted)
    assert label_map(logits[0], within).equal(painted[0])


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 5)])
def test_a_region_is_scored_on_the_union_of_its_labels(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    pred, label = (random.integers(0, 4, shape, np.uint8) for _ in range(2))
    label[:2] = IGNORE
    spacing = (1.0, 2.0, 0.5)[: len(shape)]
    rows = score_case(pred, label, NAMES, spacing, 1.0, ((1, 2, 3), (2, 3), (3,)))
    known = label != IGNORE
    for row, own in zip(rows, ([1, 2, 3], [2, 3], [3]), strict=True):
        mine, theirs = np.isin(pred, own) & known, np.isin(label, own)
        assert row["dice"] == dice(mine, theirs, spacing)
        assert row["dice"] == pytest.approx(2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()))
        ml = (int(mine.sum()) - int(theirs.sum())) * np.prod(spacing) / 1000
        assert row["volume_difference_ml"] == pytest.approx(ml)
    alone = score_case(pred, label, NAMES, spacing, 1.0, ((1,), (2,), (3,)))
    pd.testing.assert_frame_equal(pd.DataFrame(alone), pd.DataFrame(score_case(pred, label, NAMES, spacing, 1.0)))


def test_the_version_of_the_data_knows_its_regions() -> None:
    case = CasePrint("a", "a", (1, 1, 1), (1, 1, 1), "hash", "hash", {1: 1, 2: 1}, ())
    plain = Fingerprint((case,), ("MRI",), {"background": 0, "a": 1, "b": 2})
    regions = Fingerprint((case,), ("MRI",), {"background": 0, "a": 1, "b": 2}, regions=((1, 2), (2,)))
    assert plain.hash != regions.hash
    assert Fingerprint.from_json(regions.to_json()) == regions
