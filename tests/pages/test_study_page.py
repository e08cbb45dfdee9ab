"""The page of a study: the answer first, what was run, and nothing that hides on paper."""

from pathlib import Path

import pandas as pd
import pytest
from browser import headless

from benchmarks.statistics import study
from seg.pages.findings import findings_page
from seg.pages.identity import facts, identity_table
from seg.study.analysis import analyse
from seg.study.figures import write_figures
from seg.study.methods import Facts
from seg.study.question import Asked
from seg.study.tables import tables

NAMES = ("baseline", "<se>")
KNOWN = Facts(
    dataset="<liver>",
    version="abcd1234",
    base={"model": "unet"},
    budget="5 epochs",
    command="python -m seg.train -m experiments=<x>",
    runs=[("0a1b2c3d", "<se>-0", "http://localhost:5000/#/runs/0a1b"), ("1a1b2c3d", "baseline-0", "")],
)


def question() -> Asked:
    changes: dict[str, dict[str, list[object]]] = {"baseline": {}, "<se>": {"attention.where": [None, "<all>"]}}
    return Asked("tiny", "tiny-1", "Does <SE> help?", NAMES, changes, {}, ("baseline",), 0.005, 6)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    scores = study(dict.fromkeys(NAMES, 0.0), patients=45, classes=("organ", "tumour"))
    analysis = analyse(scores, baseline="baseline", margin=0.005, draws=400)
    write_figures(analysis, folder)
    text = findings_page(question(), analysis, tables(analysis), KNOWN, "", folder)
    (folder / "report.html").write_text(text)
    return folder / "report.html"


def test_the_answer_comes_before_the_picture_and_the_picture_before_what_is_folded(page: Path) -> None:
    text = page.read_text()
    places = [text.index(part) for part in ("<h1>", "<p class=answer>", "<figure", "<details>")]
    assert places == sorted(places)
    assert "p 0." not in text[: text.index("<details>")], "no p-value before what is folded"
    for name in ("The findings in words", "Results", "Classes", "Comparisons", "Checklist", "What the columns mean"):
        assert f"<summary>{name}</summary>" in text
    for name in ("se", "liver", "x", "all"):
        assert f"<{name}>" not in text, "text from outside is escaped"


def test_it_says_what_was_run_and_links_each_run(page: Path) -> None:
    text = page.read_text()
    part = text.split("how to repeat it</summary>")[1].split("</details>")[0]
    for words in ("&lt;liver&gt;", "abcd1234", "model: unet", "5 epochs", "experiments=&lt;x&gt;", "→ &lt;all&gt;"):
        assert words in part
    assert 'href="http://localhost:5000/#/runs/0a1b"' in part
    assert "Does &lt;SE&gt; help?" in part


def test_facts_are_what_all_runs_share(tmp_path: Path) -> None:
    started = pd.to_datetime(["2026-11-01", "2026-11-03"], utc=True)
    table = pd.DataFrame(
        {
            "run_id": ["a" * 8, "b" * 8], "run_id_short": ["aaaa", "bbbb"], "name": ["x", "y"], "started": started,
            "dataset": "liver", "dataset_version": "0123456789", "split_hash": ["s1", "s2"], "git_commit": "c0ffee",
            "git_dirty": ["false", "true"], "environment": "box", "params.trainer.max_steps": [120.0, 120.0],
            "params.trainer.max_epochs": "auto", "params.trainer.max_minutes": [0.5, 0.5],
            "params.optimizer.lr": [0.1, 0.2], "params.loss._target_": "seg.losses.dice_ce",
            "params.attention._target_": [None, "SE"],
            "params.resolved.batch_size": [4.0, 4.0],
        }
    )  # fmt: skip
    parents = pd.DataFrame({"params.command": ["python -m seg.train -m experiments=tiny"]})
    (tmp_path / "runs").mkdir()
    known = facts(question(), table, parents, tmp_path)
    assert "SE" not in known.settings["Network"], "only one arm has it"
    assert known.settings["Training"] == "loss dice_ce; batch 4", "not the rate, which the arms differ in"
    assert (known.budget, known.version, known.split) == ("120 steps or 0.5 minutes", "01234567", "s1, s2")
    unset = {f"params.trainer.max_{name}": None for name in ("steps", "minutes")}
    came_out = {"params.resolved.max_steps": 1000.0, "params.resolved.max_minutes": None}
    assert facts(question(), table.assign(**unset, **came_out), parents, tmp_path).budget == "1000 steps"
    assert known.dates == "1 November 2026 to 3 November 2026"
    assert known.code == "commit c0ffee (with uncommitted changes)"
    assert known.command == "python -m seg.train -m experiments=tiny"
    rows = {row[0].text: row[1].text for row in identity_table(question(), Facts()).blocks[""]}
    assert list(rows) == ["Question", "Runs", "Arm baseline", "Arm <se>"], "what is not known is left out"


@pytest.mark.slow
def test_it_fits_a_phone_and_unfolds_on_paper(page: Path) -> None:
    shown = "return document.querySelector('main > details:last-of-type table').checkVisibility()"
    with headless() as browser:
        for width in (390, 1280):
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(page.as_uri())
            browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        browser.get(page.as_uri())
        assert not browser.execute_script(shown)
        browser.find_element("css selector", "main > details:last-of-type > summary").send_keys(" ")
        assert browser.execute_script(shown)
        browser.get(page.as_uri())
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert browser.execute_script(shown)
        assert browser.get_log("browser") == []
