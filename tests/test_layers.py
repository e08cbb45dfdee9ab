"""What import-linter (pyproject.toml) and ruff cannot hold: how soon a verb starts, how long a function is."""

import ast
import subprocess
import sys
from pathlib import Path

import house

SEG = Path(__file__).parent.parent / "seg"
VERBS = sorted(path.stem for path in (SEG.parent / "conf").glob("*.yaml"))
HEAVY = ("torch", "monai", "mlflow", "nibabel", "optuna", "pandas", "numpy")


def test_the_start_of_a_verb_imports_nothing_heavy() -> None:
    code = f"import importlib, sys\nfor verb in {VERBS}:\n    importlib.import_module('seg.' + verb)\n"
    code += f"    print(*[verb + ' imports ' + name for name in {HEAVY} if name in sys.modules], sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [""] * (len(VERBS) + 1)


def test_functions_and_files_stay_small() -> None:
    long = []
    for path in SEG.rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > 400:
            long.append(f"{path}: over 400 lines")
        long += [
            f"{path}: {node.name} is longer than 60 lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
        ]
    assert long == []


def test_the_map_in_contributing_is_up_to_date() -> None:
    text = house.FILE.read_text()
    assert text == house.with_map(text), "make map"


def test_no_drawers() -> None:
    assert not {path.stem for path in SEG.rglob("*.py")} & {"utils", "helpers", "common", "base"}
