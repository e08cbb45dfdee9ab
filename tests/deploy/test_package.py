"""A package: what comes out of it is what the run predicts, and what is damaged or foreign is refused."""

import hashlib
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from seg.deploy import Predictor
from seg.deploy.package import EXAMPLE, MODEL, WEIGHTS, read
from seg.errors import DataError
from seg.files import digest


@pytest.fixture(scope="module")
def packed(whole: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs, result = whole
    place = tmp_path_factory.mktemp("packed") / "package"
    Predictor.load(outputs / "runs" / result.predictions.name).store(place)
    return place


def copied(packed: Path, place: Path, changed: dict[str, bytes]) -> Path:
    """The package with other content in some files and hashes to match, as a forger would make it."""
    files = {name: (packed / name).read_bytes() for name in (MODEL, WEIGHTS, EXAMPLE)} | changed
    about = json.loads(files[MODEL])
    about["sha256"] = {name: hashlib.sha256(files[name]).hexdigest() for name in (WEIGHTS, EXAMPLE)}
    about["sha256"][MODEL] = digest(about)
    files[MODEL] = json.dumps(about).encode()
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


@pytest.mark.parametrize("kind", ["package", "package.zip"])
def test_a_package_predicts_what_the_run_does(
    packed: Path, kind: str, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    place = packed
    if kind.endswith(".zip"):
        place = tmp_path / kind
        Predictor.load(packed).store(place)
    predictor = Predictor.load(place)
    for mask in sorted(whole[1].predictions.glob("*.nii.gz")):
        predictor(phantom_root / "imagesTr" / mask.name).save(tmp_path / mask.name)
        assert (tmp_path / mask.name).read_bytes() == mask.read_bytes()


def test_a_package_names_its_data_set_though_the_configuration_does_not(whole: tuple[Path, Any], packed: Path) -> None:
    run = whole[0] / "runs" / whole[1].predictions.name
    assert OmegaConf.load(run / "config/config.yaml").data.name is None, "it is the folder's"
    assert read(packed).origin["data"] == "phantom"


def test_a_package_is_smaller_than_a_checkpoint_and_names_no_case(packed: Path, whole: tuple[Path, Any]) -> None:
    outputs, result = whole
    best = outputs / "runs" / result.predictions.name / "checkpoints" / "best.pt"
    assert sum(path.stat().st_size for path in packed.iterdir()) < 0.6 * best.stat().st_size
    text = (packed / MODEL).read_text()
    assert "phantom_0" not in text
    about = json.loads(text)
    assert about["origin"]["run_id"] == result.run_id
    assert set(about["scores"]) == {"lobe", "tail"}
    assert about["training"][0]["volumes_ml"]["lobe"] > 0
    assert about["cost"]["inference_seconds_a_case"] > 0
    assert about["cost"]["params"] == sum(value.numel() for value in read(packed).weights.values())


def test_weights_in_another_memory_layout_are_packed_alike(packed: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(packed)
    last = {
        name: value.to(memory_format=torch.channels_last_3d) if value.ndim == 5 else value
        for name, value in predictor.package.weights.items()
    }
    assert not all(value.is_contiguous() for value in last.values())
    replace(predictor, package=replace(predictor.package, weights=last)).store(tmp_path / "copy")
    assert (tmp_path / "copy" / WEIGHTS).read_bytes() == (packed / WEIGHTS).read_bytes()


def test_a_place_that_is_taken_is_left_alone(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.zip").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        Predictor.load(packed).store(tmp_path / "taken.zip")
    assert (tmp_path / "taken.zip").read_text() == "mine"


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, EXAMPLE])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_damage_is_refused(packed: Path, tmp_path: Path, name: str, harm: str) -> None:
    place = copied(packed, tmp_path / "copy", {})
    content = bytearray((place / name).read_bytes())
    if harm == "cut":
        (place / name).write_bytes(content[: len(content) // 2])
    elif harm == "remove":
        (place / name).unlink()
    elif name != MODEL:  # a flip within JSON may spell another valid run id
        content[len(content) // 2] ^= 1
        (place / name).write_bytes(content)
    else:
        (place / name).write_bytes(content.replace(b'"plan"', b'"plam"'))
    with pytest.raises(DataError, match="copy"):
        Predictor.load(place)


def changed(packed: Path, keys: list[str], value: object) -> bytes:
    """``model.json`` with another value at one place."""
    about = json.loads((packed / MODEL).read_text())
    place = about
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(about, indent=1).encode()


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["classes", "lobe"], 7),
        (["plan", "spacing_mm"], [1.0, 1.0, 9.0]),
        (["settings", "inference", "overlap"], -1),
        (["scores"], {}),
        (["origin", "run_id"], "another"),
    ],
)
def test_a_change_of_one_value_is_noticed(packed: Path, tmp_path: Path, keys: list[str], value: object) -> None:
    place = copied(packed, tmp_path / "copy", {})
    (place / MODEL).write_bytes(changed(packed, keys, value))
    with pytest.raises(DataError, match=r"model\.json is not as it was written"):
        Predictor.load(place)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["settings"], {}),
        (["settings", "model"], None),
        (["settings", "inference"], None),
        (["classes"], {"background": 0}),
    ],
)
def test_what_cannot_be_built_is_said_in_words(packed: Path, tmp_path: Path, keys: list[str], value: object) -> None:
    place = copied(packed, tmp_path / "copy", {MODEL: changed(packed, keys, value)})
    with pytest.raises(DataError, match="its network cannot be built"):
        Predictor.load(place)


def test_other_weights_are_noticed_by_their_answer(packed: Path, tmp_path: Path) -> None:
    from safetensors.torch import save

    weights = {name: value * 1.01 for name, value in read(packed).weights.items()}
    place = copied(packed, tmp_path / "copy", {WEIGHTS: save(weights)})
    with pytest.raises(DataError, match="does not answer as it did"):
        Predictor.load(place)


def test_on_another_machine_rounding_is_tolerated_and_no_more(packed: Path, tmp_path: Path) -> None:
    from safetensors.torch import save

    about = json.loads((packed / MODEL).read_text()) | {"answered_by": "another machine"}
    example = read(packed).example
    nearly = {**example, "logits": example["logits"] * (1 + 1e-5)}
    Predictor.load(copied(packed, tmp_path / "near", {MODEL: json.dumps(about).encode(), EXAMPLE: save(nearly)}))
    far = {**example, "logits": example["logits"] * 1.5}
    with pytest.raises(DataError, match="can be rounding"):
        Predictor.load(copied(packed, tmp_path / "far", {MODEL: json.dumps(about).encode(), EXAMPLE: save(far)}))


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_a_pickle_is_not_read(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = io.BytesIO()
    torch.save({"weights": Malice()}, pickled)
    with pytest.raises(DataError, match="cannot be read as a package"):
        Predictor.load(copied(packed, tmp_path / "copy", {WEIGHTS: pickled.getvalue()}))
    assert not Path("executed").exists()


def test_an_archive_cannot_write_outside(packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "leads-out.zip"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w") as archive:
        for name in (MODEL, WEIGHTS, EXAMPLE):
            archive.writestr(name, (packed / name).read_bytes())
        archive.writestr("../outside", "no")
    Predictor.load(place)
    assert [*tmp_path.iterdir()] == [place.parent]
    assert [*place.parent.iterdir()] == [place]


def test_an_archive_that_unpacks_without_end_is_refused(packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "bomb.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MODEL, b" " * 10**7)
    with pytest.raises(DataError, match="in it 10000000: no package"):
        Predictor.load(place)


def test_a_later_format_says_so(packed: Path, tmp_path: Path) -> None:
    about = json.loads((packed / MODEL).read_text()) | {"format": 99}
    with pytest.raises(DataError, match="format 99"):
        Predictor.load(copied(packed, tmp_path / "copy", {MODEL: json.dumps(about).encode()}))


def test_the_weights_are_those_of_the_checkpoint(packed: Path, whole: tuple[Path, Any]) -> None:
    outputs, result = whole
    best = torch.load(outputs / "runs" / result.predictions.name / "checkpoints" / "best.pt", weights_only=True)
    stored = read(packed).weights
    kept = best["average"] or best["network"]
    assert sum(np.prod(value.shape) for value in stored.values()) > 1000
    for name, value in stored.items():
        assert torch.equal(value, kept.get(f"module.{name}", kept.get(name)))
