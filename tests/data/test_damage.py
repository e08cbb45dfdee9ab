"""Damage at scale: flipped bits, zeroed and cut tails. Refused by name, made again, or harmless; none silent."""

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg.data import nifti, volumes
from seg.data.cases import folder
from seg.data.fingerprint import Fingerprint, fingerprint
from seg.data.plan import Plan, make_plan
from seg.data.preprocess import prepare
from seg.data.splits import Split, load_split, make_split
from seg.errors import SegError

pytestmark = pytest.mark.slow
ROUNDS = 300


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """One bit flipped; in a fifth of the calls a tail cut off or zeroed."""
    content, place, kind = bytearray(raw), int(rng.integers(len(raw))), rng.integers(10)
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        return bytes(content[:place]) + bytes(len(content) - place)
    content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


def rounds(path: Path, look: Callable[[], str], number: int = ROUNDS, seed: int = 0) -> Counter[str]:
    """Damages ``path`` again and again; what ``look`` says of it: refused, made again, harmless."""
    raw, rng, counts = path.read_bytes(), np.random.default_rng(seed), Counter[str]()
    for _ in range(number):
        broken = damaged(raw, rng)
        if broken == raw:
            continue
        path.write_bytes(broken)
        said = ""
        try:
            counts[look()] += 1
        except SegError as error:
            said = str(error)
            counts["refused"] += 1
        assert not said or path.name in said or path.parent.name in said
    path.write_bytes(raw)
    print(f"{path.name}: {dict(counts)}")
    return counts


def gzip_accepts(path: Path) -> bool:
    try:
        gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        return False
    return True


@pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
def test_images_and_labels(phantom_root: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes((phantom_root / kind / "phantom_001.nii.gz").read_bytes())

    def read() -> Any:
        return volumes.read_label(path) if kind == "labelsTr" else volumes.read_image([path])[0]

    sound = read()

    def look() -> str:
        np.testing.assert_array_equal(read(), sound)
        assert gzip_accepts(path), "what gzip refuses was read"
        return "harmless"

    counts = rounds(path, look)
    assert set(counts) <= {"refused", "harmless"}
    assert counts["refused"] > 0.9 * counts.total()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Six cases small enough to be read hundreds of times."""
    root, rng = tmp_path / "small", np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (root / kind).mkdir(parents=True)
    for number in range(6):
        image = rng.normal(100, 9, (7, 6, 5)).astype(np.float32)
        label = rng.integers(0, 3, image.shape).astype(np.uint8)
        nifti.write_volume(root / f"imagesTr/c{number}.nii.gz", image, np.diag([1.0, 1, 2, 1]))
        nifti.write_volume(root / f"labelsTr/c{number}.nii.gz", label, np.diag([1.0, 1, 2, 1]))
    pairs = [{"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(6)]
    labels = {"0": "background", "1": "a", "2": "b"}
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": labels, "training": pairs}))
    return root


def test_the_cache(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases, cache = folder(small), tmp_path / "cache"
    prints = fingerprint(cases, cache)
    plan = make_plan(prints, cases.channels, dims=3)

    def entries() -> dict[str, list[Any]]:
        store = prepare(cases, prints, plan, cache, 1)
        return {
            case: [np.array(one.image), np.array(one.label), one.geometry, one.foreground]
            for case, one in store.items()
        }

    sound, counts = entries(), Counter[str]()

    def look() -> str:
        caplog.clear()
        found = entries()
        np.testing.assert_equal(found, sound)
        return "made again" if "prepared again" in caplog.text else "harmless"

    for seed, name in enumerate(("image.npy", "label.npy", "foreground.npy", "about.json")):
        path = min(cache.glob(f"*/{name}"))
        counts += rounds(path, look, ROUNDS // 3, seed)
    assert set(counts) == {"made again"}


def test_a_damaged_entry_that_cannot_be_removed_is_not_used(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, cache = folder(small), tmp_path / "cache"
    prints = fingerprint(cases, cache)
    plan = make_plan(prints, cases.channels, dims=3)
    prepare(cases, prints, plan, cache, 1)
    path = min(cache.glob("*/image.npy"))
    *whole, last = path.read_bytes()
    path.write_bytes(bytes([*whole, last ^ 1]))
    monkeypatch.setattr("seg.data.preprocess.shutil.rmtree", lambda *_, **__: None)  # as in another's folder
    with pytest.raises(PermissionError, match="damaged entry"):
        prepare(cases, prints, plan, cache, 1)


def test_the_fingerprint(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases, cache = folder(small), tmp_path / "cache"
    sound = fingerprint(cases, cache)

    def look() -> str:
        caplog.clear()
        assert fingerprint(cases, cache) == sound
        return "made again" if "is damaged" in caplog.text else "harmless"

    (path,) = cache.iterdir()
    assert set(rounds(path, look)) == {"made again"}


def test_what_a_run_keeps_of_its_data(small: Path, tmp_path: Path) -> None:
    cases = folder(small)
    prints = fingerprint(cases, tmp_path / "cache")
    kept = {
        Split: make_split(prints, fold=0, folds=2, test_fraction=0.2, seed=0),
        Plan: make_plan(prints, cases.channels, dims=3),
        Fingerprint: prints,
    }
    for kind, sound in kept.items():
        path = tmp_path / f"{kind.__name__}.json"
        path.write_text(sound.to_json())

        def look(kind: Any = kind, sound: Any = sound, path: Path = path) -> str:
            try:
                assert kind.from_json(path.read_text()) == sound
            except (ValueError, KeyError, TypeError):  # as RunFolder and Predictor expect, who name the file
                return "refused"
            return "harmless"

        counts = rounds(path, look, ROUNDS // 2)
        assert counts["refused"] > 0.9 * counts.total()


def test_files_that_people_write(small: Path, tmp_path: Path) -> None:
    """They have no checksum: a flipped letter is a name like another. Each is read, or refused as a fault."""
    (small / "who.csv").write_text("case,patient\n" + "".join(f"c{n},p{n}\n" for n in range(6)))
    prints = fingerprint(folder(small), tmp_path / "cache")
    (small / "split.json").write_text(json.dumps({"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]}))

    def as_a_whole() -> str:
        found = folder(small)
        assert len(found.cases) == 6
        fingerprint(found, tmp_path / "cache")
        return "read"

    def as_patients() -> str:
        assert len(folder(small, patient="who.csv").cases) == 6
        return "read"

    def as_parts() -> str:
        load_split(small / "split.json", prints, 0)
        return "read"

    for name, look in (("dataset.json", as_a_whole), ("who.csv", as_patients), ("split.json", as_parts)):
        counts = rounds(small / name, look, ROUNDS // 2)
        assert set(counts) <= {"read", "refused"}


@pytest.mark.parametrize("times_kept", [False, True])
def test_a_training_image_damaged_after_the_check_is_refused_or_read_as_it_was(
    small: Path, tmp_path: Path, times_kept: bool
) -> None:
    """Also where a tool sets the file's times back."""
    cases, cache = folder(small), tmp_path / "cache"
    fingerprint(cases, cache)
    path = small / "imagesTr/c3.nii.gz"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    if times_kept:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SegError, match=r"c3\.nii\.gz"):
        fingerprint(cases, cache)
