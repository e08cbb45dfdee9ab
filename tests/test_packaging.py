"""A wheel carries the package with its options and commands, and works from another folder."""

import configparser
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_setup_cfg_names_every_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    named = set(parser["options"]["packages"].split())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "seg").rglob("__init__.py")}
    assert named == there | {"seg.conf", "hydra_plugins", "hydra_plugins.seg_sweeper"}


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "venv"
    venv.create(place, system_site_packages=False, with_pip=True)
    # The dependencies are borrowed from this environment; what is under test is the wheel itself.
    site = next((place / "lib").glob("python*")) / "site-packages"
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    subprocess.run([place / "bin/pip", "install", "--quiet", "--no-deps", wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "experiments").mkdir()
    (elsewhere / "experiments" / "mine.yaml").write_text("# @package _global_\nseed: 41\n")
    command = [place / "bin" / "seg-train", "--cfg", "job", "experiments=mine", "model=unetpp"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seed: 41" in done.stdout
    assert "seg.models.unetpp" in done.stdout
    where = [place / "bin/python", "-c", "import seg; print(seg.__file__)"]
    assert str(place) in subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, check=True).stdout


def test_every_extra_that_is_named_can_be_installed() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    files = [path for place in ("docs", "conf", "seg") for path in (ROOT / place).rglob("*.*") if path.suffix != ".pyc"]
    texts = [
        path.read_text(errors="ignore")
        for path in (*files, ROOT / "README.md")
        if path.suffix in (".md", ".py", ".yaml")
    ]
    named = {name for text in texts for name in re.findall(r"pip install [^\n`]*?(?:seg|\.)\[(\w+)\]", text)}
    assert {"itk", "onnx", "postgres"} <= named <= {*parser["options.extras_require"]}
