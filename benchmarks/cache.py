"""Seconds to check and prepare a data set into a fresh cache, and of a second run until its first step."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.data import options
from seg.config.options import CONF


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        overrides = options(Path(folder))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=overrides)
        import seg.data.preprocess  # noqa: F401  its import is not what is measured
        from seg.engine.cases import prepare_cases, read_material

        start = time.perf_counter()
        material = read_material(cfg)
        checked = time.perf_counter()
        store = prepare_cases(cfg, material)
        prepared = time.perf_counter()
        print(f"{len(store)} cases: checked in {checked - start:.1f} s, prepared in {prepared - checked:.1f} s")

        command = [sys.executable, "-m", "seg.train", *overrides, "data.fold=all", "trainer.max_steps=1"]
        start = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            next(line for line in process.stderr if line.startswith("epoch"))
            print(f"second run: first step done {time.perf_counter() - start:.1f} s after the command")
            process.communicate()


if __name__ == "__main__":
    main()
