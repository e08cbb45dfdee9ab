"""Masks made elsewhere are scored like a run's own; what does not fit is refused, whole and once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seg import score
from seg.config.command import read
from seg.config.options import CONF
from seg.data.nifti import write_volume
from seg.engine.masks import matched, tools
from seg.errors import ConfigError, DataError
from seg.metrics import dice, hd95_mm
from seg.study.tools import compare_tools, scores_table

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def label(shift: int = 0) -> np.ndarray:
    """Two cubes, the second beside the first; moved along the first axis."""
    made = np.zeros((20, 12, 10), np.uint8)
    made[4 + shift : 10 + shift, 2:6, 2:8] = 1
    made[4 + shift : 10 + shift, 6:10, 2:8] = 2
    return made


def folder(place: Path, arrays: dict[str, np.ndarray], affine: np.ndarray = AFFINE) -> Path:
    place.mkdir()
    for name, array in arrays.items():
        write_volume(place / name, array, affine)
    return place


@pytest.fixture
def ref(tmp_path: Path) -> Path:
    return folder(tmp_path / "ref", {f"c{n}.nii.gz": label() for n in range(8)})


@pytest.fixture
def scored(tmp_path: Path, ref: Path) -> Callable[..., pd.DataFrame]:
    """The command; gives what it wrote."""

    def command(*arguments: str) -> pd.DataFrame:
        text = (CONF / "score.yaml").read_text() + f"paths:\n  outputs: {tmp_path / 'out'}\n  cache: cache\n"
        score.main(read(text, [f"ref={ref}", *arguments]))
        (table,) = (tmp_path / "out/scores").glob("*/cases.csv")
        return pd.read_csv(table)

    return command


def test_maps_of_a_prediction_are_no_masks(scored: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    masks = {f"c{n}.nii.gz": label() for n in range(8)}
    made = folder(tmp_path / "made", masks)
    folder(made / "probabilities", masks)
    assert (scored(f"pred={made}")["dice"] == 1).all()


def test_pictures_of_a_run_s_masks_are_no_masks_whatever_its_cases_are_called(tmp_path: Path) -> None:
    names = ("liver_Slice_12", "liver_Slice_120", "a")
    for place in ("ref", "made"):
        (tmp_path / place).mkdir()
        for name in names:
            Image.fromarray(np.tri(9, 7, dtype=np.uint8)).save(tmp_path / place / f"{name}.png")
    made = tmp_path / "made"
    (made / "run_id").write_text("0" * 32)
    for drawn in (
        "liver_Slice_12_Slice_000.png",
        "liver_Slice_120_Slice_000.png",
        "a_Slice_000.png",
        "contact_sheet.png",
    ):
        (made / drawn).write_bytes((made / "a.png").read_bytes())
    cases = matched({"made": made}, tmp_path / "ref", name="set")
    assert sorted(case.id for case in cases.cases) == sorted(names)


def test_scores_are_those_of_the_metrics(
    scored: Callable[..., pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = {f"c{n}.nii.gz": label(shift=n // 2) for n in range(7)} | {"c7.nii": label()}
    table = scored(f"pred={folder(tmp_path / 'made', masks)}", "classes=[lobe,tail]").set_index(["case", "class"])
    assert len(table) == 16
    assert set(table["arm"]) == {"made"}
    one, other = label(shift=2) == 2, label() == 2
    assert table.loc[("c4", "tail"), "dice"] == pytest.approx(dice(one, other, (1, 1, 2)))
    assert table.loc[("c4", "tail"), "hd95_mm"] == pytest.approx(hd95_mm(one, other, (1, 1, 2))) == 2
    printed = capsys.readouterr().out
    assert "| lobe | 0." in printed
    assert "| mean of classes | 0." in printed
    assert "0 of 16" in printed


def test_a_perfect_mask_counts(tmp_path: Path, scored: Callable[..., pd.DataFrame]) -> None:
    made = {f"c{n}.nii.gz": label(shift=3 if n > 4 else 0) for n in range(8)}
    table = scored(f"pred={folder(tmp_path / 'made', made)}")
    means = compare_tools(table, ["made"]).arms.set_index("metric")
    assert means.loc["dice", "mean"] == pytest.approx(table["dice"].mean())
    assert means.loc["dice", "patients"] == 8


@pytest.mark.slow
def test_tools_are_compared_by_the_studys_statistics(
    scored: Callable[..., pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = folder(tmp_path / "far", {f"c{n}.nii.gz": label(shift=2) for n in range(8)})
    near = folder(tmp_path / "near", {f"c{n}.nii.gz": label(shift=n % 2) for n in range(8)})
    table = scored(f"pred=[{far},{near}]")
    assert list(table["arm"].unique()) == ["far", "near"]
    printed = capsys.readouterr().out
    assert "near against far: better. Dice +0." in printed
    assert "8 patients better, 0 worse" in printed
    assert "seed" not in printed
    assert (tmp_path / "out/scores/far_near/forest.png").exists()
    assert "near – far" in (tmp_path / "out/scores/far_near/table.md").read_text()


def test_names_of_classes_and_voxels_that_nobody_annotated(
    scored: Callable[..., pd.DataFrame], tmp_path: Path, ref: Path
) -> None:
    made = folder(tmp_path / "made", {f"c{n}.nii.gz": label(shift=2) for n in range(8)})
    unknown = label()
    unknown[10:12] = 7
    write_volume(ref / "c0.nii.gz", unknown, AFFINE)
    labels = {"background": 0, "lobe": 1, "tail": 2, "ignore": 7}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    table = scored(f"pred={made}").set_index(["case", "class"])["dice"]
    assert table["c0", "lobe"] == pytest.approx(2 * 4 / (4 + 6)), "what lies on unknown voxels is no error"
    assert table["c1", "lobe"] == pytest.approx(4 / 6)


def test_what_is_in_neither_is_not_scored(
    scored: Callable[..., pd.DataFrame], tmp_path: Path, ref: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = np.where(label() == 2, 0, label())
    for name in ("c0.nii.gz", "c1.nii.gz"):
        write_volume(ref / name, empty, AFFINE)
    made = {f"c{n}.nii.gz": empty if n else label() for n in range(8)}
    table = scored(f"pred={folder(tmp_path / 'made', made)}").set_index(["case", "class"])
    assert table.loc[("c0", "class_2"), ["dice", "false"]].tolist() == [0, 1]
    assert table.loc[("c2", "class_2"), ["dice", "missed"]].tolist() == [0, 1]
    assert np.isnan(table.loc[("c1", "class_2"), "dice"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| class_2")]
    assert line.endswith("| 6 of 6 | 1 | 7 |")


def test_cases_that_one_side_lacks_are_named_together(
    scored: Callable[..., pd.DataFrame], tmp_path: Path, ref: Path
) -> None:
    one = folder(tmp_path / "one", {f"c{n}.nii.gz": label() for n in range(2, 9)})
    two = folder(tmp_path / "two", {f"c{n}.nii.gz": label() for n in range(7)})
    with pytest.raises(DataError) as error:
        scored(f"pred=[{one},{two}]")
    said = str(error.value)
    assert said.startswith("3 faults")
    assert f"{one}: no mask of 2 cases in {ref}: c0, c1." in said
    assert f"{one}: masks of 1 case without a label in {ref}: c8." in said
    assert f"{two}: no mask of 1 case in {ref}: c7." in said


def test_folders_that_cannot_be_read_are_named_together(scored: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    twice = folder(tmp_path / "twice", {"c0.nii.gz": label(), "c0.nii": label()})
    with pytest.raises(DataError, match=r"(?s)3 faults.*none: no such.*empty: there is nothing.*twice: there"):
        scored(f"pred=[{tmp_path / 'none'},{folder(tmp_path / 'empty', {})},{twice}]")


def test_other_grids_and_unknown_values_are_named_together(scored: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    made = folder(tmp_path / "made", {f"c{n}.nii.gz": label() for n in range(8)})
    for name in ("c1.nii.gz", "c3.nii.gz"):
        write_volume(made / name, label(), np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(DataError, match=r"(?s)2 faults.*c1\.nii\.gz: .*spacing 1×1×3 mm.*c3\.nii\.gz"):
        scored(f"pred={made}")
    for name in ("c1.nii.gz", "c3.nii.gz"):
        write_volume(made / name, label() * 3, AFFINE)
    with pytest.raises(DataError, match=r"(?s)2 faults.*c1\.nii\.gz: label has values \{3.*c3\.nii\.gz"):
        scored(f"pred={made}", "classes=[lobe,tail]")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [["ref=null", "pred=a"], ["pred=a", "run=abc"], ["pred=a", "data.root=b"], []])
def test_it_must_be_clear_what_is_scored(scored: Callable[..., pd.DataFrame], given: list[str]) -> None:
    with pytest.raises(ConfigError, match="pred=masks/ ref=labels/"):
        scored(*given)


def test_tools_are_called_by_what_tells_their_folders_apart() -> None:
    assert [*tools(["/x/nnunet/", "/x/ours"])] == ["nnunet", "ours"]
    assert [*tools(["/x/a/masks", "/x/b/masks"])] == ["a/masks", "b/masks"]
    assert [*tools(["/x/masks"])] == ["masks"]


def test_one_patient_gets_no_interval() -> None:
    rows = [{"arm": "a", "seed": 0, "fold": 0, "case": "c", "patient": "p", "class": "lobe"}]
    table = pd.DataFrame(rows).assign(dice=0.9, nsd=0.8, hd95_mm=1.0, missed=0, false=0)
    assert [cell.text for cell in scores_table(table, ["a"]).blocks[""][0][:2]] == ["lobe", "0.900"]
