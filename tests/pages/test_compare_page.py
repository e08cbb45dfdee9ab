"""The compare page: what is written into it, and what a reader meets who opens it in a browser."""

import base64
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Reader, headless
from omegaconf import OmegaConf

from benchmarks.compare import MadeUp, make_up
from seg.compare import main
from seg.data.cases import CaseSet, folder
from seg.data.classes import class_indices
from seg.data.nifti import to_ras
from seg.data.volumes import read_image, read_label
from seg.pages import compare

HOSTILE = "</script><script>window.hacked=1</script>"


def write_page(outputs: Path, runs: list[str], path: Path, **given: Any) -> Path:
    """What ``python -m seg.compare runs=[…]`` writes."""
    values = {"runs": runs, "study": None, "sweep": None, "folds": "auto", "file": str(path), "channel": 0}
    values |= {"window": "auto", "max_mb": 30, "data": {"root": None}, "tracking": {"uri": None}}
    main(OmegaConf.create(values | {"paths": {"outputs": str(outputs)}} | given))
    return path


class Scripts(HTMLParser):
    """The page as a browser splits it: the text of each script and style, and every other start tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: dict[str, str | None] | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs) | {"tag": tag} if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.texts.append((self._open, data))

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def json(self, name: str) -> Any:
        return json.loads(next(text for attributes, text in self.texts if attributes.get("id") == name))


@pytest.fixture(scope="module")
def phantom_cases(phantom_root: Path) -> CaseSet:
    return folder(phantom_root, name="phantom")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, phantom_cases: CaseSet) -> Path:
    """The page of three runs; the third was tested on other cases too, and has lost a mask."""
    outputs = tmp_path_factory.mktemp("compare")
    ids = [case.id for case in phantom_cases.cases]
    make_up(outputs, phantom_cases, MadeUp("a1" * 16, "baseline", error_mm=2), ids[:7])
    make_up(outputs, phantom_cases, MadeUp("b2" * 16, "cbam", error_mm=0.8), ids[:7])
    third = make_up(outputs, phantom_cases, MadeUp("c3" * 16, "cbam", seed=1, error_mm=0.9), ids[2:9])
    (third.predictions / f"{ids[4]}.nii.gz").unlink()
    return write_page(outputs, ["a1a1", "b2b2", "c3c3"], outputs / "page.html")


# ------------------------------------------------------------------------------------------------ the file


def test_the_volumes_come_out_as_they_went_in(made: Path, phantom_cases: CaseSet) -> None:
    page = Scripts(made)
    for number, about in enumerate(page.json("data")["cases"][:3]):
        case = next(case for case in phantom_cases.cases if case.id == about["id"])
        image, affine = read_image(case.images)
        image, label = to_ras(image[0], affine)[0], to_ras(read_label(case.label), affine)[0]
        content = zlib.decompress(base64.b64decode(page.json(f"case-{number}")))
        planes = np.frombuffer(content, np.uint8).reshape(-1, *about["dims"])
        assert list(label.shape) == about["dims"] == about["shape"]
        assert len(planes) == 2 + sum(about["here"])
        assert (planes[1] == label).all()
        low, high = about["kept"]
        grey = np.cumsum(planes[0], axis=1, dtype=np.uint8)
        inside = (image > low) & (image < high)
        assert inside.mean() > 0.99
        assert np.abs(low + grey[inside] * (high - low) / 255 - image[inside]).max() <= (high - low) / 255
        assert low <= about["window"][0] < about["window"][1] <= high


def test_nothing_but_our_own_style_and_scripts_is_allowed(made: Path) -> None:
    page = Scripts(made)
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    ours = [text for attributes, text in page.texts if attributes.get("type") != "application/json"]
    assert len(ours) == 1 + len(compare.SCRIPTS)
    for text in ours:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not [attributes for _, attributes in page.tags if set(attributes) & {"src", "style", "onclick", "onload"}]


def test_our_scripts_set_text_only() -> None:
    for name in compare.SCRIPTS:
        text = (files("seg.pages") / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        assert "<!--" not in text, name
        assert "</script" not in text, name


def test_hostile_names_stay_text(tmp_path: Path, phantom_cases: CaseSet) -> None:
    cases = hostile(tmp_path / HOSTILE.replace("/", "|"), phantom_cases)
    make_up(tmp_path, cases, MadeUp("a1" * 16, HOSTILE), [case.id for case in cases.cases])
    path = write_page(tmp_path, ["a1a1"], tmp_path / "page.html")
    plain, page = path.read_text(encoding="utf-8"), Scripts(path)
    assert plain.count("<script") == plain.count("</script>") == len(compare.SCRIPTS) + 1 + len(cases.cases)
    assert "window.hacked" not in "".join(text for a, text in page.texts if a.get("type") != "application/json")
    head = page.json("data")
    assert [case["id"] for case in head["cases"]] == sorted(case.id for case in cases.cases)
    assert [k["name"] for k in head["classes"]] == list(cases.names[1:])
    assert head["runs"][0]["label"] == HOSTILE


def hostile(root: Path, cases: CaseSet) -> CaseSet:
    """A copy of two cases under names that try to become markup, with such class names too."""
    names = ["<img src=x onerror=window.hacked=1>'\"&", "Ümlaut 漢字 <script>window.hacked=1<!--"]
    training = []
    for kind in ("imagesTr", "labelsTr"):
        (root / kind).mkdir(parents=True)
    for name, case in zip(names, cases.cases, strict=False):
        assert case.label is not None
        shutil.copy(case.images[0], root / "imagesTr" / f"{name}.nii.gz")
        shutil.copy(case.label, root / "labelsTr" / f"{name}.nii.gz")
        training.append({"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"})
    labels = {"0": "background", "1": HOSTILE, "2": "<b>\"quoted\" & 'more'</b>"}
    content = {"modality": {"0": "<i>T1</i>"}, "labels": labels, "training": training}
    (root / "dataset.json").write_text(json.dumps(content))
    return folder(root)


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless() as browser:
        yield browser


@pytest.fixture
def reader(chromium: Any, made: Path) -> Reader:
    return Reader(chromium, made)


@pytest.fixture
def volume(made: Path, phantom_cases: CaseSet) -> Callable[[str, str | None], np.ndarray]:
    """Class indices (X, Y, Z) in RAS+ order of a case: of the reference, or of a run."""

    def read(case: str, run: str | None) -> np.ndarray:
        known = next(known for known in phantom_cases.cases if known.id == case)
        path = made.parent / "predictions" / f"run_{run}" / f"{case}.nii.gz" if run else known.label
        assert path is not None
        return to_ras(class_indices(read_label(path), phantom_cases.values), read_image(known.images)[1])[0]

    return read


def drawn(reader: Reader, tile: str, expected: np.ndarray) -> np.ndarray:
    """Class indices of a slice as the tile shows them: by colour, grey being background."""
    seen = reader.pixels(tile, *expected.shape)
    colors = [tuple(bytes.fromhex(k["color"][1:])) for k in reader.ask("return data.classes")]
    classes = np.zeros(expected.shape, int)
    for k, color in enumerate(colors, 1):
        classes[(np.abs(seen - color) <= 2).all(-1)] = k  # blending rounds
    rest = seen[classes == 0]
    assert (rest.max(-1) == rest.min(-1)).all(), "neither grey nor the colour of a class"
    return classes


@pytest.mark.slow
@pytest.mark.parametrize(("plane", "axis"), [("Axial", 2), ("Coronal", 1), ("Sagittal", 0)])
def test_slices_move_and_show_the_right_label(
    reader: Reader, volume: Callable[[str, str | None], np.ndarray], plane: str, axis: int
) -> None:
    reader.click(f"#planes button[value='{axis}']")
    for box in ("outline", "zoom"):
        reader.click(f"#{box}")
    reader.choose("opacity", "100")
    case = reader.text("#case-name")
    volumes_by_tile = {"[data-kind=reference]": volume(case, None), "[data-run='0']": volume(case, "a1a1a1a1")}
    first = int(reader.text("#slice-number").split()[0])
    filled = [np.count_nonzero(part) for part in np.moveaxis(volumes_by_tile["[data-kind=reference]"], axis, 0)]
    assert filled[first] == max(filled), "it opens at the largest structure"
    shown = []
    for step in range(3):
        for tile, whole in volumes_by_tile.items():
            expected = np.take(whole, first + step, axis)[::-1, ::-1].T
            found = drawn(reader, tile, expected)
            assert (found == expected).all(), f"{plane} {first + step} of {tile}: {(found != expected).sum()} voxels"
            shown.append(found.tobytes())
        reader.press("ARROW_RIGHT")
        assert reader.text("#slice-number").startswith(f"{first + step + 1} of ")
    assert len(set(shown)) == len(shown), "each slice and each tile is another picture"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["0", "mean", "range"])
def test_the_table_sorts_both_ways(reader: Reader, key: str) -> None:
    directions = set()
    for _ in range(2):
        reader.click(f"#table th[data-key='{key}'] button")
        heads = "return [...document.querySelectorAll('#table th[aria-sort]')].map((h) => [h.dataset.key, h.ariaSort])"
        ((head, direction),) = reader.ask(heads)
        assert head == key
        texts = [text.replace("−", "-") for text in reader.column(key)]
        numbers = [float(text) for text in texts if text != "–"]
        assert texts[len(numbers) :] == ["–"] * (len(texts) - len(numbers)), "what is missing comes last"
        assert numbers == sorted(numbers, reverse=direction == "descending")
        assert len(set(numbers)) > 2
        directions.add(direction)
    assert directions == {"ascending", "descending"}


@pytest.mark.slow
def test_worst_comes_first(reader: Reader) -> None:
    means = [float(text) for text in reader.column("mean")]
    assert means == sorted(means)
    assert reader.column("case")[0] == reader.text("#case-name")


@pytest.mark.slow
def test_one_run_by_itself(chromium: Any, made: Path) -> None:
    reader = Reader(chromium, write_page(made.parent, ["b2b2"], made.with_name("one.html")))
    numbers = [float(text) for text in reader.column("0")]
    assert numbers == sorted(numbers), "worst first"
    assert reader.ask("return document.querySelectorAll('#table thead th').length") == 2
    reader.press("x", "ARROW_DOWN", "p")
    assert reader.browser.get_log("browser") == []


@pytest.mark.slow
def test_numbers_are_those_of_the_runs(reader: Reader, made: Path) -> None:
    import pandas as pd

    for run, short in enumerate(("a1a1a1a1", "b2b2b2b2", "c3c3c3c3")):
        table = pd.read_csv(made.parent / f"runs/run_{short}/data/cases.csv")
        expected = table.groupby("case")["dice"].mean()
        for case, text in zip(reader.column("case"), reader.column(str(run)), strict=True):
            assert text == (f"{expected[case]:.3f}" if case in expected else "–")


@pytest.mark.slow
def test_a_click_in_the_table_opens_the_case(reader: Reader) -> None:
    order = reader.column("case")
    for place in (3, 7):
        reader.click(f"#table tbody tr:nth-child({place + 1}) button")
        reader.until("return document.getElementById('case-name').textContent === arguments[0]", order[place])
        current = reader.ask("return document.querySelector('#table tr[aria-current=true] th').textContent")
        assert current == order[place]


@pytest.mark.slow
def test_the_runs_shown_are_those_of_tiles_and_table(reader: Reader) -> None:
    assert reader.ask("return [...document.querySelectorAll('#table thead th')].map((h) => h.dataset.key)") == [
        *("case", "0", "1", "2", "mean", "range")
    ]
    reader.click("#shown label:nth-child(3) input")
    assert reader.ask("return [...document.querySelectorAll('#table thead th')].map((h) => h.dataset.key)") == [
        *("case", "0", "1", "mean", "difference")
    ]
    assert reader.ask("return document.querySelectorAll('.tile').length") == 4
    for case, text in zip(reader.column("case"), reader.column("difference"), strict=True):
        first, second = reader.ask("return data.cases.find(({ id }) => id === arguments[0]).scores", case)[:2]
        expected = f"{second[0][0] - first[0][0]:.3f}".replace("-", "−") if first and second else "–"
        assert text == expected


@pytest.mark.slow
def test_arrows_go_through_cases_in_the_order_of_the_table(reader: Reader) -> None:
    order = reader.column("case")
    for step in (1, 2, 1):
        reader.press("ARROW_DOWN" if step != 1 or reader.text("#case-name") == order[0] else "ARROW_UP")
        reader.until("return document.getElementById('case-name').textContent === arguments[0]", order[step])
    reader.ask("document.getElementById('opacity').focus()")
    before = reader.text("#slice-number")
    reader.press("ARROW_LEFT", "x")
    assert reader.text("#slice-number") == before, "in a slider keys move the slider"


@pytest.mark.slow
def test_what_a_screen_reader_hears(reader: Reader) -> None:
    reader.press("ARROW_RIGHT")
    number = reader.text("#slice-number").split()[0]
    assert reader.ask("return document.getElementById('slice').ariaValueText").startswith(f"axial slice {number} of 0")
    label = reader.ask("return document.querySelector('[data-run=\"0\"] canvas').getAttribute('aria-label')")
    assert re.match(rf"Run 1, baseline · seed 0, {reader.text('#case-name')}, axial slice \d+: Dice 0\.\d+", label)
    nameless = reader.ask(
        "return [...document.querySelectorAll('button, input, select, [role=img], [role=region], [role=group]')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()"
        " || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert reader.ask("return document.querySelectorAll('main, h1').length") == 2


def opened(reader: Reader, case: str) -> None:
    reader.ask("location.hash = `case=${arguments[0]}`", case)
    reader.until("return document.getElementById('case-name').textContent === arguments[0]", case)


@pytest.mark.slow
def test_a_run_without_the_mask_says_so(reader: Reader) -> None:
    opened(reader, "phantom_004")
    tile = reader.ask("const t = document.querySelector('[data-run=\"2\"]'); return [t.className, t.innerText]")
    assert "absent" in tile[0]
    assert re.search(r"0\.\d{3}[\s\S]*no prediction", tile[1]), "its score is known all the same"


@pytest.mark.slow
def test_runs_of_other_cases_take_no_room(reader: Reader) -> None:
    tiles = "return [...document.querySelectorAll('.tile')].filter((t) => t.offsetWidth).map((t) => t.dataset.run)"
    opened(reader, "phantom_000")
    assert reader.ask(tiles) == [None, None, "0", "1"]
    assert reader.text("#untested") == "Runs not tested on this case: 3"
    opened(reader, "phantom_008")
    assert reader.ask(tiles) == [None, None, "2"]
    opened(reader, "phantom_003")
    assert reader.ask(tiles) == [None, None, "0", "1", "2"]
    assert reader.text("#untested") == ""


@pytest.mark.slow
def test_contrast_classes_and_overlays_change_the_picture(reader: Reader) -> None:
    picture = "return document.querySelector('[data-run=\"0\"] canvas').toDataURL()"
    seen = [reader.ask(picture)]
    for act in (
        lambda: reader.choose("level", "90"),
        lambda: reader.choose("width", "40"),
        lambda: reader.choose("opacity", "80"),
        lambda: reader.press("c"),
        lambda: reader.press("x"),
        lambda: reader.click("#outline"),
        lambda: reader.click("#classes input"),
        lambda: reader.press("o"),
        lambda: reader.choose("size", "70"),
    ):
        act()
        seen.append(reader.ask(picture))
    assert len(set(seen)) == len(seen)


@pytest.mark.slow
def test_the_close_up_is_the_box_of_the_structures_and_a_third_more(reader: Reader) -> None:
    assert reader.ask("return widened([10, 20, 22, 24], [0, 0, 60, 60])") == [6, 16, 26, 28]
    assert reader.ask("return widened([2, 2, 55, 57], [0, 0, 60, 60])") == [0, 0, 60, 60], "little is won"
    assert reader.ask("return widened([60, 60, 0, 0], [0, 0, 60, 60])") == [0, 0, 60, 60], "no structure"
    size = "const c = document.querySelector('[data-kind=reference] canvas'); return [c.width, c.height, boxOf(plane)]"
    before = reader.ask(size)
    reader.press("z")
    assert reader.ask("return boxOf(plane)") == reader.ask("return plane.whole")
    reader.press("z")
    assert reader.ask(size) == before


@pytest.mark.slow
def test_the_address_names_the_slice_by_the_number_that_is_shown(reader: Reader) -> None:
    reader.ask("for (const about of cases) Object.assign(about, { offset: [3, 4, 5], step: [2, 2, 3] })")
    case = reader.column("case")[-1]
    opened(reader, case)
    number = int(reader.text("#slice-number").split()[0])
    assert reader.ask("return location.hash") == f"#case={case}&plane=axial&slice={number}"
    for asked in (number + 7, number + 6, number + 5):  # 3 slices are shown as one, by the number of the middle one
        reader.ask("location.hash = location.hash.replace(/slice=.*/, `slice=${arguments[0]}`)", asked)
        shown = f"return document.getElementById('slice-number').textContent.startsWith('{number + 6} of ')"
        reader.until(shown)
        assert reader.ask("return location.hash").endswith(f"slice={number + 6}")


@pytest.mark.slow
def test_lengths_of_any_magnitude_are_told(reader: Reader) -> None:
    assert reader.ask("return [0.256, 0.0006, 24, 2500].map(barOf).map(short)") == ["0.1", "0.0002", "5", "500"]
    assert reader.ask("return times([0.0005, 0.78125, 12345, 0.7000000001])") == "0.0005 × 0.7813 × 12345 × 0.7"


@pytest.mark.slow
def test_nothing_is_fetched_and_nothing_is_complained_of(reader: Reader) -> None:
    reader.press("ARROW_DOWN", "x", "c", "p")
    assert reader.ask("return performance.getEntriesByType('resource').map(({ name }) => name)") == []
    assert reader.browser.get_log("browser") == []


@pytest.mark.slow
def test_no_script_but_ours_runs(chromium: Any, tmp_path: Path, phantom_cases: CaseSet) -> None:
    cases = hostile(tmp_path / "data", phantom_cases)
    for letter in "ab":
        run = MadeUp(letter * 32, HOSTILE, seed=ord(letter))
        make_up(tmp_path, cases, run, [case.id for case in cases.cases])
    reader = Reader(chromium, write_page(tmp_path, ["aaaa", "bbbb"], tmp_path / "page.html"))
    shown = {reader.text("#case-name")}
    reader.press("ARROW_DOWN", "x")
    reader.click("#table tbody tr button")
    shown.add(reader.text("#case-name"))
    reader.ask(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 2'; document.body.append(s)"
    )
    assert reader.ask("return window.hacked") is None
    assert shown <= {case.id for case in cases.cases}
    assert HOSTILE in reader.text("#classes")
    assert reader.ask("return document.querySelectorAll('main img, main b b, main script:not([type])').length") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "width"), [(12, 1280), (12, 400), (2, 1280), (2, 1600)])
def test_it_fits_the_window(
    chromium: Any, tmp_path: Path, phantom_cases: CaseSet, runs: int, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [case.id for case in phantom_cases.cases[:2]]
    for number in range(runs):
        make_up(tmp_path, phantom_cases, MadeUp(f"{number:x}" * 32, f"arm number {number}", seed=number), ids)
    path = write_page(tmp_path, [f"{number:x}" * 8 for number in range(runs)], tmp_path / "page.html")
    reader = Reader(chromium, path, width=width)
    assert reader.ask("return document.documentElement.scrollWidth") <= width
    if width >= 1280:
        inner = "const t = document.querySelector('#cases .scroll'); return t.scrollWidth - t.clientWidth"
        assert reader.ask(inner) <= 0
    assert reader.ask("return document.querySelectorAll('.tile').length") == runs + 2
    seconds = reader.ask("return performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    with capsys.disabled():
        print(f"\n{runs} runs, {len(ids)} cases: {path.stat().st_size / 1e6:.2f} MB, loaded after {seconds:.2f} s")
    assert path.stat().st_size / len(ids) * 60 < 30e6


@pytest.mark.slow
def test_dark_and_light(chromium: Any, made: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.append(Reader(chromium, made).ask("return getComputedStyle(document.body).backgroundColor"))
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 600
    assert dark < 150
