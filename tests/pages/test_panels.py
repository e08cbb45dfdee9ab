"""Which slices become pictures, what stands in them, and under which name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg.errors import ConfigError
from seg.pages import panels
from seg.pages.panels import case_panels, choose_slices, contact_sheet, extremes
from seg.pages.picture import Picture

SHAPE = (12, 10, 8)


def volumes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    label, pred = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    label[4:9, 3:7, 2:5], label[4, 3, 5], pred[4:9, 3:8, 3:7] = 1, 2, 1
    return image, label, pred


def made(folder: Path, **changes: object) -> list[Path]:
    image, label, pred = volumes()
    options = {
        "case": "hippocampus_001",
        "run": "a1b2c3d4",
        "dice_of_case": 0.8734,
        "class_names": ["background", "anterior", "posterior"],
        "spacing_mm": (1.0, 2.0, 4.0),
        "axis": 2,
        "folder": folder,
        "dpi": 60,
    }
    return case_panels(image, label, pred, **(options | changes))  # type: ignore[arg-type]


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[Picture]:
    """Collects what would be drawn."""
    drawn: list[Picture] = []
    monkeypatch.setattr(panels, "panel", lambda picture, path, dpi: drawn.append(picture) or path)
    return drawn


def test_files_are_named_by_case_and_slice_and_are_whole(tmp_path: Path) -> None:
    paths = made(tmp_path / "new", slices="foreground", dpi=300)
    assert [path.name for path in paths] == [f"hippocampus_001_Slice_{n:03d}.png" for n in range(2, 7)]
    assert sorted((tmp_path / "new").iterdir()) == paths
    with Image.open(paths[0]) as sheet:
        assert sheet.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert sheet.width > 4 * 1.6 * 300
        sheet.load()


def test_the_same_slice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (made(tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_title_names_case_slice_dice_and_run(tmp_path: Path, pictures: list[Picture]) -> None:
    made(tmp_path)
    said = f"{pictures[0].title} {pictures[0].subtitle}"
    for part in ("hippocampus_001", "axial slice 2 of 0–7", "case dice 0.873", "run a1b2c3d4"):
        assert part in said


def test_legend_gives_the_dice_of_the_classes_in_the_slice(tmp_path: Path, pictures: list[Picture]) -> None:
    made(tmp_path, slices="all")
    assert pictures[0].classes == {}
    assert pictures[3].classes == {1: f"anterior {2 * 20 / 45:.2f}"}
    assert pictures[5].classes == {1: "anterior 0.00", 2: "posterior 0.00"}


@pytest.mark.parametrize(
    ("axis", "edges", "spacing_mm"),
    [
        (0, ("A", "S", "P", "I"), (4.0, 2.0)),
        (1, ("R", "S", "L", "I"), (4.0, 1.0)),
        (2, ("R", "A", "L", "P"), (2.0, 1.0)),
    ],
)
def test_radiological_view(
    tmp_path: Path, pictures: list[Picture], axis: int, edges: tuple[str, ...], spacing_mm: tuple[float, float]
) -> None:
    """An image that grows towards the patient's right, front and head is brightest at the edges that say so."""
    ramps = dict(zip("RAS", np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), strict=True))
    _, label, pred = volumes()
    for letter, edge in ((edges[0], np.s_[:, 0]), (edges[1], np.s_[0])):
        case_panels(
            ramps[letter], label, pred, case="c", run="r", dice_of_case=1, class_names="bap",
            spacing_mm=(1.0, 2.0, 4.0), axis=axis, folder=tmp_path,
        )  # fmt: skip
        shown = pictures.pop()
        assert (shown.image[edge] == ramps[letter].max()).all()
        assert (shown.edges, shown.spacing_mm) == (edges, spacing_mm)


def test_masks_lie_on_the_image(tmp_path: Path, pictures: list[Picture]) -> None:
    _, label, pred = volumes()
    case_panels(
        10.0 * label + pred, label, pred, case="c", run="r", dice_of_case=1, class_names="bap",
        spacing_mm=(1, 1, 1), axis=1, folder=tmp_path,
    )  # fmt: skip
    assert np.array_equal(pictures[0].image, 10.0 * pictures[0].label + pictures[0].pred)
    assert pictures[0].label.any()


def test_window_leaves_out_padding_and_outliers(tmp_path: Path, pictures: list[Picture]) -> None:
    image = np.full((50, 50, 8), -1000.0)
    image[10:40, 10:40] = np.linspace(0, 100, 30)[:, None, None]
    image[20, 20, 4] = 1e6
    mask = np.zeros(image.shape, np.uint8)
    case_panels(image, mask, mask, case="c", run="r", dice_of_case=1, class_names="b", spacing_mm=(1, 1, 1), axis=2,
                folder=tmp_path)  # fmt: skip
    assert pictures[0].window == pytest.approx((0, 100), abs=5)
    case_panels(image, mask, mask, case="c", run="r", dice_of_case=1, class_names="b", spacing_mm=(1, 1, 1), axis=2,
                folder=tmp_path, window=(-160, 240))  # fmt: skip
    assert pictures[1].window == (-160, 240), "of CT the plan's"


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ("best", [2]),
        ("foreground", [2, 3, 4, 5, 6]),
        ("all", list(range(8))),
        (1, [4]),
        (2, [3, 5]),
        (3, [2, 4, 6]),
        (5, [2, 3, 4, 5, 6]),
        (99, [2, 3, 4, 5, 6]),
    ],
)
def test_choice_of_slices(slices: str | int, expected: list[int]) -> None:
    _, label, pred = volumes()
    assert choose_slices(label, pred, 2, slices) == expected


@pytest.mark.parametrize("slices", ["best", "foreground", 3])
def test_choice_without_a_reference_or_without_anything(slices: str | int) -> None:
    _, label, pred = volumes()
    nothing = np.zeros_like(label)
    assert set(choose_slices(nothing, pred, 2, slices)) <= {3, 4, 5, 6}
    assert choose_slices(nothing, nothing, 2, slices) == [4]


@pytest.mark.parametrize("slices", ["worst", 0, -1, 2.5, True])
def test_an_unknown_choice_is_refused(slices: str | int) -> None:
    _, label, pred = volumes()
    with pytest.raises(ConfigError, match=r"predictions\.slices is .*best, foreground, all"):
        choose_slices(label, pred, 2, slices)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_extremes_name_each_case_once(count: int) -> None:
    dice = {f"case_{n}": n / 10 for n in range(count)}
    found = extremes(dice)
    assert len(set(found.values())) == len(found) == min(count, 3)
    assert [caption.split()[0] for caption in found] == ["best", "median", "worst"][:: 2 if count == 2 else 1][:count]
    if count == 9:
        assert found == {
            "best of 9: dice 0.800": "case_8",
            "median of 9: dice 0.400": "case_4",
            "worst of 9: dice 0.000": "case_0",
        }


def test_contact_sheet_shows_the_pictures_in_order(tmp_path: Path) -> None:
    files = {}
    for name in ("red", "lime", "blue"):
        files[name] = tmp_path / f"{name}.png"
        Image.new("RGB", (300, 100), name).save(files[name])
    with Image.open(contact_sheet(files, tmp_path / "sheet.png", width=600)) as sheet:
        colors = [color for _, color in sorted((y, sheet.getpixel((300, y))) for y in range(sheet.height))]
        assert sheet.width == 600
    order = [color for color in dict.fromkeys(colors) if color in {(255, 0, 0), (0, 255, 0), (0, 0, 255)}]
    assert order == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
