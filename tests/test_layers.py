"""Imports run downward only, and each heavy package has one door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SEG = Path(__file__).parent.parent / "seg"
FILES = sorted(SEG.rglob("*.py"))
# Lower number: lower layer. A file may import its own layer and those below.
LAYERS = {
    "errors": 0, "atomic": 0, "seeding": 0,
    "data": 1, "models": 1,
    "losses": 2, "metrics": 2, "schedulers": 2, "optimizers": 2,
    "engine": 3, "report": 3,
    "config": 4, "checks": 5, "rundir": 4, "unsent": 4, "provenance": 4, "trial": 5, "tested": 5,
    "mlflow_store": 5, "tracking": 5, "evaluate": 5, "console": 5, "material": 5, "build": 6, "record": 7, "cli": 7,
    "run": 8, "sweep": 8, "train": 8, "clean": 8, "sync": 8, "runs": 8, "compare": 8, "studies": 8, "progress": 8,
}  # fmt: skip
DOORS = {
    "mlflow": {"mlflow_store.py"},
    "nibabel": {"data/nifti.py"},
    "optuna": {f"sweep/{name}.py" for name in ("ledger", "entries", "samplers", "storage", "rows", "plots")},
    "hydra": {"cli.py", "config.py", "train.py"}
    | {f"sweep/{name}.py" for name in ("plan", "space", "syntax", "sweeper", "workers")},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SEG)))
def test_imports_run_downward(path: Path) -> None:
    relative = path.relative_to(SEG)
    own = "train" if relative.name == "__main__.py" else relative.parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        if not name.startswith("seg."):
            continue
        other = layer(name)
        assert LAYERS[other] <= LAYERS[own], f"{relative} imports {name}, which lies above it"
        assert {own, other} != {"data", "models"}, (
            f"{relative} imports {name}: data and models know nothing of each other"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SEG)))
def test_each_heavy_package_has_one_door(path: Path) -> None:
    relative = path.relative_to(SEG).as_posix()
    for package, doors in DOORS.items():
        if relative not in doors:
            assert package not in {name.split(".")[0] for name in imports(path)}, f"{relative} imports {package}"


@pytest.mark.parametrize("verb", ["train", "clean", "sync", "runs", "compare"])
def test_the_start_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    heavy = ("torch", "monai", "mlflow", "nibabel", "optuna", "pandas", "numpy")
    code = f"import sys, seg.{verb}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SEG)))
def test_functions_and_files_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"


def test_no_drawers() -> None:
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "base"}
