"""What ``check=true`` says about a training before it is run, and the sheet that it draws."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import TINY, arguments, composed

from seg.data.preprocess import Scan
from seg.engine.distributed import World
from seg.pages.picture import Picture, overview
from seg.pages.preview import Look, preview
from seg.train import train


@pytest.fixture
def told(phantom_root: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    def check(*overrides: str) -> list[str]:
        with caplog.at_level("INFO", "seg"):
            assert (
                train(composed(*TINY, *arguments(phantom_root, tmp_path, cache), "check=true", *overrides), "x") is None
            )
        messages = caplog.messages
        return messages[next(n for n, line in enumerate(messages) if "no fault found" in line) :]

    return check


def test_a_check_tells_what_a_training_takes_and_draws_six_cases(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    lines = told("trainer.max_steps=600", "trainer.max_epochs=null")
    said = {line.split()[0]: line for line in lines[1:]}
    assert [*said] == ["leaks", "network", "time", "memory", "disk", "look"]
    assert "none" in said["leaks"]
    minutes, seconds = (float(said["time"].split(word)[0].split()[-1]) for word in ("min for", "s; tried"))
    assert minutes == pytest.approx(600 * seconds / 60, abs=0.1 + 600 * seconds / 600)
    assert "6 cases" in said["look"]
    (picture,) = (tmp_path / "check").iterdir()
    assert picture.name == "phantom.png"
    with Image.open(picture) as image:
        assert min(image.size) > 500
    assert {path.name for path in tmp_path.iterdir()} == {"check"}, "no run, no database"


def test_minutes_that_are_set_need_no_trial(told: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg.engine.foresight.gflops", lambda *_: None)
    monkeypatch.setattr("seg.engine.foresight.sheet", lambda *_: (Path("x"), 0))
    lines = told("trainer.max_minutes=7", "trainer.max_epochs=null")
    assert "  time at most 7 min, as set" in lines
    assert any(line.startswith("  memory not known") for line in lines)


def test_large_patches_are_tried_smaller(
    phantom_root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg.engine import foresight
    from seg.engine.build import build_run
    from seg.engine.cases import read_material
    from seg.engine.device import choose_device, choose_precision

    cfg = composed(*TINY, *arguments(phantom_root, tmp_path, cache), "data.patch=[64,64,32]", "data.batch_size=8")
    material = read_material(cfg)
    built = build_run(cfg, material, World(), choose_precision("fp32", choose_device("cpu")))
    monkeypatch.setitem(foresight.LIMIT, "cpu", 0.05)
    tried = foresight.try_steps(cfg, built, World())
    assert tried is not None
    assert tried.patches.startswith("2 patches of ")
    assert math.prod(map(int, tried.patches.split()[-1].split("×"))) < 64 * 64 * 32
    assert tried.seconds > 0


@pytest.mark.parametrize(("patch_mm", "wider"), [((8.0, 8.0, 8.0), False), ((80.0, 80.0, 8.0), True)])
def test_the_sheet_shows_label_and_patch_where_they_are(
    tmp_path: Path, patch_mm: tuple[float, ...], wider: bool
) -> None:
    image, label = np.zeros((1, 32, 32, 8), np.float32), np.zeros((32, 32, 8), np.uint8)
    image[0, 4:28, 4:28] = np.random.default_rng(0).uniform(1, 2, (24, 24, 8))
    label[20:26, 8:12, 2:5] = 1
    look = Look("a", Scan(image, (2.0, 2.0, 3.0), np.eye(4), True), label)
    path = preview(
        [look], tmp_path / "x.png", title="x", channel="CT", class_names=("background", "a"),
        patch_mm=patch_mm, patch="a patch", axis=2, window=(0.0, 2.0),
    )  # fmt: skip
    pixels = np.asarray(Image.open(path)).astype(int)
    panel = pixels[110:, : pixels.shape[1] // 2]
    green = np.argwhere((panel[..., 1] > panel[..., 0] + 60) & (panel[..., 1] > panel[..., 2] + 20))
    green = green[green[:, 0] < panel.shape[0] * 0.7]  # without the legend
    assert len(green)
    assert ((pixels == 0x40).all(-1).mean() > 0.05) == wider, "what is outside the image, beyond the legend's swatch"


def test_the_patch_is_shown_whole_beside_its_frame() -> None:
    image = np.zeros((20, 60), np.float32)
    image[4:16, [10, 21]] = image[[4, 15], 10:22] = 1  # the border of the patch
    flat = Picture(
        image, np.zeros((20, 60), np.uint8), np.zeros((20, 60), np.uint8), (1.0, 1.0), (0.0, 1.0), "", "", {}
    )
    panels = np.asarray(overview(flat, (10.0, 4.0, 22.0, 16.0), 100).convert("L")).astype(int)
    patch = panels[:, panels.shape[1] // 2 + 3 :]
    bright = np.argwhere((patch > 180) & (patch < 255))
    high, wide = bright.max(0) - bright.min(0) + 1
    assert high == pytest.approx(panels.shape[0], abs=8), "to the last row"
    assert wide == pytest.approx(high, abs=8)
