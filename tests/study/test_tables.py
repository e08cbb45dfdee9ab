"""Tables hold the analysis' own numbers, and no name can break them."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.statistics import study
from seg.study.analysis import Analysis, analyse
from seg.study.tables import effects_table, latex, markdown, three_digits, wide, write_tables
from seg.study.typeset import latex_text, markdown_text

AWKWARD = r"50%_of #1 & {co} $x^2$ ~ \n <b>|*a*`"
GAINS = {"base": 0.0, AWKWARD: -0.03, "cbam_warmup": 0.03}
SCORES = study(GAINS, patients=40)
COST = pd.DataFrame(
    {
        "params": [5.6e6, 5.61e6],
        "training_seconds": [1234.5, None],
        "memory_mib": [None, None],
        "colour": ["red", "blue"],
    },
    index=["cbam_warmup", "base"],
)


EFFECTS = analyse(SCORES, baseline="base", draws=400).comparisons.rename(columns={"arm": "effect"}).assign(order=1)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    missed = (SCORES["arm"] == "base") & (SCORES["case"] == "case_001")
    return analyse(SCORES.assign(missed=missed.astype(int)), baseline="base", margin=0.01, draws=1000)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(text: str, name: str) -> list[list[str]]:
    """Cells of the rows of one Markdown table, without its ruler."""
    rows = [
        cells(line) for line in text.split(f"### {name}\n")[1].split("### ")[0].splitlines() if line.startswith("|")
    ]
    return [rows[0], *rows[2:]]


def test_files_are_written(analysis: Analysis, tmp_path: Path) -> None:
    paths = write_tables(analysis, tmp_path / "study", COST)
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv"]
    assert all(path.stat().st_size > 500 for path in paths)


def test_markdown_has_the_same_number_of_cells_in_every_row(analysis: Analysis) -> None:
    text = markdown(analysis, COST)
    for name, rows in (("Results", 4), ("Spread", 9), ("Comparisons", 9), ("Ranks", 4)):
        found = section(text, name)
        assert len(found) == rows
        assert {len(row) for row in found} == {len(found[0])}


def test_results_show_means_best_in_bold_verdicts_failures_and_cost(analysis: Analysis) -> None:
    heads, base, awkward, warmup = section(markdown(analysis, COST), "Results")
    assert heads == ["Arm", "Dice ↑", "HD95 (mm) ↓", "Missed", "False", "Parameters (M)", "Training (s)"]
    means = analysis.arms.set_index(["metric", "arm"])["mean"]
    assert base[1].startswith(f"{means['dice', 'base']:.3f} [")
    assert warmup[1].startswith(f"**{means['dice', 'cbam_warmup']:.3f} [")
    assert warmup[1].endswith("** ▲")
    assert warmup[2].startswith(f"**{means['hd95_mm', 'cbam_warmup']:.2f} [")
    assert awkward[1].endswith("] ▼")
    assert [base[3], warmup[3]] == ["3 of 120", "0 of 120"]
    assert [warmup[5:], base[5:], awkward[5:]] == [["5.60", "1234"], ["5.61", "–"], ["–", "–"]]


def test_only_an_arm_that_surely_comes_first_is_in_bold() -> None:
    for gain, bold in ((0.0005, False), (0.03, True)):
        gains = {"base": 0.0, "se": gain, "worse": -0.05}
        rows = section(markdown(analyse(study(gains, patients=40), baseline="base", draws=1000)), "Results")
        assert [row[1].startswith("**") for row in rows[1:]] == [False, bold, False]
    scores = SCORES[SCORES["arm"] != AWKWARD].assign(dice=0.8)
    rows = section(markdown(analyse(scores, baseline="base", draws=400)), "Results")
    assert [row[1] for row in rows[1:]] == ["**0.800 [0.800, 0.800]**"] * 2, "arms that are the same"


def test_beside_each_class_stands_in_how_many_cases_it_is_present_missed_and_false() -> None:
    scores = study({"base": 0.0, "se": 0.01}, patients=10, seeds=2, classes=("organ", "tumour"))
    tumour, arm, case = scores["class"] == "tumour", scores["arm"], scores["case"]
    absent = tumour & (case > "case_003")
    made_up = absent & (arm == "se") & (case == "case_007")
    missed = tumour & (arm == "base") & (case == "case_001")
    for name, wrong in (("dice", 0.0), ("hd95_mm", 60.0)):
        scores[name] = scores[name].where(~absent).where(~(made_up | missed), wrong)
    scores = scores.assign(missed=missed.astype(int), false=made_up.astype(int))
    rows = section(markdown(analyse(scores, baseline="base", draws=400)), "Classes")
    assert rows[0] == ["Arm", "Dice ↑", "Δ Dice [95 %]", "HD95 (mm) ↓", "Δ HD95 (mm) [95 %]", "Missed", "False"]
    assert rows[1][0] == "*organ: present in 10 of 10 cases, scored in 10*"
    assert rows[4][0] == "*tumour: present in 4 of 10 cases, scored in 5*"
    assert [row[5:] for row in rows[5:]] == [["2 of 8", "0"], ["0 of 8", "2"]]
    base = scores[tumour & (arm == "base")]["dice"].dropna()
    assert rows[5][1] == f"{(base.sum() + 2) / 10:.3f}", "rightly left empty where the other made it up: 1"
    assert [row[3:5] for row in section(markdown(analyse(scores, baseline="base", draws=400)), "Results")[1:]] == [
        ["2 of 28", "0"],
        ["0 of 28", "2"],
    ]


def test_comparisons_show_the_numbers_of_the_analysis(analysis: Analysis) -> None:
    rows = section(markdown(analysis), "Comparisons")
    found = next(row for row in rows if row[0] == "cbam_warmup – base")
    line = analysis.comparisons.query("metric == 'dice' and arm == 'cbam_warmup' and against == 'base'").iloc[0]
    assert found[1] == f"{line['difference']:+.4f}"
    assert found[2] == f"[{line['ci_low']:+.4f}, {line['ci_high']:+.4f}]"
    assert found[6] == f"{line['wins']}/{line['ties']}/{line['losses']}"
    assert found[7] == f"{line['smallest']:.4f}"
    assert found[8] == "**better**"
    assert found[9].endswith(" % or more")


def test_csv_gives_back_every_number(analysis: Analysis, tmp_path: Path) -> None:
    path = write_tables(analysis, tmp_path, COST)[2]
    read = pd.read_csv(path, index_col="arm")
    assert read.index.tolist() == list(GAINS)
    table = analysis.comparisons.set_index(["metric", "arm", "against"])
    for kind, against in (("baseline", "base"), ("previous", AWKWARD)):
        for name in ("difference", "ci_low", "p_wilcoxon_holm", "wins", "verdict"):
            found = read.loc["cbam_warmup", f"hd95_mm_{kind}_{name}"]
            assert found == pytest.approx(table.loc[("hd95_mm", "cbam_warmup", against), name])
    assert read.loc["base", "dice_mean"] == pytest.approx(SCORES.loc[SCORES["arm"] == "base", "dice"].mean())
    assert read["missed"].tolist() == [3, 0, 0]
    assert read.loc["cbam_warmup", "params"] == 5.6e6
    assert "memory_mib" not in read
    assert "colour" not in read


def test_latex_is_whole_and_escaped(analysis: Analysis) -> None:
    text = latex(analysis, COST)
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 5
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 5
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 6 for line in body.strip().splitlines())
    assert r"\textbf{0." in body
    assert "$^{+}$" in body
    assert r"50\%\_of \#1 \& \{co\} \$x\textasciicircum{}2\$ \textasciitilde{} \textbackslash{}n" in body


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex: apt install texlive-latex-recommended")
def test_latex_compiles(analysis: Analysis, tmp_path: Path) -> None:
    write_tables(analysis, tmp_path, COST, [effects_table(EFFECTS)])
    lines = [
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}",
        r"\input{table.tex}",
        r"\end{document}",
    ]
    (tmp_path / "page.tex").write_text("\n".join(lines))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert "Overfull" not in done.stdout


def test_of_a_study_that_is_half_done_everything_says_so(analysis: Analysis, tmp_path: Path) -> None:
    notice = "Preliminary: 2 of 12 runs are finished."
    half = replace(analysis, meta=replace(analysis.meta, notice=notice, study="my_study"))
    text = markdown(half, COST, [effects_table(EFFECTS)])
    assert text.startswith(f"**{notice}**")
    assert text.count(notice) == 7
    printed = latex(half, COST, [effects_table(EFFECTS)])
    assert printed.count(notice) == 6
    assert printed.count(r"\label{tab:my-study-") == 6


def test_an_arm_alone_has_tables_too() -> None:
    found = analyse(SCORES[SCORES["arm"] == "base"], baseline="base", draws=400)
    assert "Verdict" not in markdown(found)
    assert "Comparisons" not in latex(found)
    assert wide(found, COST)["params"].tolist() == [5.61e6]


def test_one_seed_has_no_spread_of_seeds() -> None:
    found = analyse(SCORES[SCORES["seed"] == 0], baseline="base", draws=400)
    assert [row[4] for row in section(markdown(found), "Spread")[2:5]] == ["–"] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.6123, "5.61"), (0.00012345, "0.000123"), (123456.7, "123457"), (0, "0"), (99.95, "100.0"), (float("nan"), "–")],
)
def test_costs_have_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_names_lose_their_power() -> None:
    assert markdown_text("a|b") == r"a\|b"
    assert markdown_text("<script>") == r"\<script>"
    assert markdown_text("[x](http://y)") == r"[x\](http://y)"
    assert markdown_text("cbam_warmup p < 0.05 [1, 2]") == "cbam_warmup p < 0.05 [1, 2]"
    assert markdown_text("_a_\nb") == r"\_a\_ b"
    assert latex_text('[1] "x"') == "{[}1] {''}x{''}"
    assert latex_text("a\\b{c}") == r"a\textbackslash{}b\{c\}"
