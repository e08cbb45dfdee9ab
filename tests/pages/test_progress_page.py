"""The page of progress: points where they belong, no name that can break it, readable without a mouse."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import headless
from PIL import Image

from seg.pages.progress import figure, progress_page
from seg.study.drawing import written
from seg.study.lines import Line, Point, lines

HOSTILE = "</title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"&"
BEGIN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def results(reached: list[float], part: Any = "test", name: str = "unet") -> list[Point]:
    cases = [f"{HOSTILE} {number}" for number in range(12)]
    ease = np.linspace(-0.02, 0.02, len(cases))
    found = []
    for number, mean in enumerate(reached):
        table = pd.DataFrame({"case": cases, "patient": cases, "class": HOSTILE, "dice": mean + ease})
        about = {"name": name, "study": HOSTILE, "arm": "se", "seed": str(number), "data": "d"}
        settings = {"optimizer.lr": f"{HOSTILE if number else 0.1}"}
        run = f"{part[0]}{number:07x}"
        end = BEGIN + timedelta(hours=30 * number)
        found.append(Point((run,), end, folds=("0",), part=part, settings=settings, scores=table, **about))
    return found


REACHED = [0.80, 0.79, 0.83, 0.81, 0.84]


@pytest.fixture(scope="module")
def both() -> list[Line]:
    return lines([*results(REACHED, name=HOSTILE), *results([0.9, 0.91], "oof")])


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self._last = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._last = tag

    def handle_data(self, data: str) -> None:
        if self._last == "title" and data.strip():
            self.titles.append(data)


def test_points_stand_at_their_time_and_dice_and_the_line_never_falls(both: list[Line]) -> None:
    panels = figure(both).axes
    assert len(panels) == 2
    days = [result.finished.timestamp() / 86400 for result in both[0].points]
    points = {line.get_gid(): line for line in panels[0].lines if line.get_gid()}
    assert list(points) == [f"point-t{number:07x}" for number in range(5)]
    assert [float(point.get_xdata()[0]) for point in points.values()] == pytest.approx(days)
    assert [float(point.get_ydata()[0]) for point in points.values()] == pytest.approx(REACHED)
    (step,) = [line for line in panels[0].lines if not line.get_gid()]
    assert step.get_drawstyle() == "steps-post"
    assert list(step.get_xdata())[:-1] == pytest.approx([days[0], days[2], days[4]])
    assert list(step.get_ydata()) == pytest.approx([0.80, 0.83, 0.84, 0.84]), "and on to the edge"
    ends = [collection.get_segments()[0][:, 1] for collection in panels[0].collections]
    assert [tuple(pair) for pair in ends] == [(best.low, best.high) for best in both[0].bests]
    assert panels[0].get_ylim()[0] <= min(best.low for best in both[0].bests)


def test_a_poor_first_try_does_not_press_the_others_together() -> None:
    (line,) = lines(results([0.1, 0.80, 0.81, 0.82, 0.83]))
    (panel,) = figure([line]).axes
    first, *others = [point for point in panel.lines if point.get_gid()]
    bottom = panel.get_ylim()[0]
    assert bottom > 0.7
    assert (first.get_marker(), others[0].get_marker()) == ("v", "o")
    assert bottom <= float(first.get_ydata()[0]) < 0.8
    assert "below the frame" in panel.get_ylabel()
    (line,) = lines(results([0.8]))
    assert "below" not in figure([line]).axes[0].get_ylabel()


def test_the_picture_is_a_png_of_all_lines(both: list[Line]) -> None:
    with (
        Image.open(BytesIO(written(figure(both), "png"))) as picture,
        Image.open(BytesIO(written(figure(both[:1]), "png"))) as half,
    ):
        assert picture.format == "PNG"
        assert picture.height == 2 * half.height
        assert np.asarray(picture.convert("L")).std() > 5


def test_hostile_names_stay_text(both: list[Line]) -> None:
    page = progress_page(HOSTILE, both, [HOSTILE])
    assert page == progress_page(HOSTILE, both, [HOSTILE]), "the same bytes each time"
    elements = Elements(page)
    assert {tag for tag, _ in elements.tags} & {"script", "img", "iframe"} == set()
    assert not [key for _, attributes in elements.tags for key in attributes if key.startswith("on") or key == "src"]
    (policy,) = [a["content"] for tag, a in elements.tags if tag == "meta" and "content" in a and "http-equiv" in a]
    assert policy.startswith("default-src 'none';")
    assert "script-src 'none'" in policy
    assert not re.search(r"(?:href|src)=[\"']?https?:", page)


def test_every_point_tells_what_it_is_and_the_best_lead_to_their_row(both: list[Line]) -> None:
    elements = Elements(progress_page("phantom", both, ["Left out: failed 2."]))
    page, *told = elements.titles
    assert page == "Progress on phantom"
    text = " ".join(told)
    for line in both:
        for result in line.points:
            assert f"run {result.run}, {result.finished:%Y-%m-%d %H:%M} UTC" in text
    links = [attributes["href"] for tag, attributes in elements.tags if tag == "a"]
    ids = {attributes.get("id") for _, attributes in elements.tags}
    assert links == [f"#run-{best.point.runs[0]}" for line in both for best in line.bests]
    assert {str(link)[1:] for link in links} <= ids
    assert all(attributes["aria-label"] for tag, attributes in elements.tags if tag == "a")


def test_the_tables_hold_the_best_and_every_result(both: list[Line]) -> None:
    page = progress_page("phantom", both, ["Left out: failed 2."])
    rows = re.findall(r"<tr[^>]*><th scope=row>.*?</tr>", page)
    assert len(rows) == 3 + 5 + 2 + 2
    assert "+0.0300 [+0.0300, +0.0300]" in rows[1]
    assert "study &lt;/title&gt;&lt;script&gt;" in rows[1]
    assert "arm se, seed 2" in rows[1]
    assert "Left out: failed 2." in page
    assert "slightly too good" in page


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless() as browser:
        yield browser


@pytest.mark.slow
def test_it_can_be_read_with_the_keyboard(chromium: Any, both: list[Line], tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "page.html"
    path.write_text(progress_page(HOSTILE, both, [HOSTILE]), encoding="utf-8")
    chromium.set_window_size(1280, 900)
    chromium.get(path.as_uri())
    ask = chromium.execute_script
    assert ask("return window.hacked") is None
    assert ask("return document.querySelectorAll('svg').length") == 2
    ActionChains(chromium).send_keys(Keys.TAB, Keys.TAB).perform()
    assert ask("return document.activeElement.getAttribute('href')") == "#run-t0000002", "the second that was the best"
    assert ask("return document.activeElement.getAttribute('aria-label')").startswith("Dice 0.830 [")
    ActionChains(chromium).send_keys(Keys.ENTER).perform()
    assert ask("return document.querySelector('tr:target th').textContent") == "2026-03-03 20:30"
    assert ask("return document.documentElement.scrollWidth <= window.innerWidth")
    assert chromium.get_log("browser") == []
