"""The default command with each model, from start to end: minutes, steps, test Dice, and how it computed."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seg.config.options import CONF


def main() -> None:
    models = sys.argv[1:] or sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            outputs = Path(folder) / model
            places = [f"paths.outputs={outputs}", f"paths.cache={folder}/cache", f"data.root={folder}/phantom"]
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "seg.train", f"model={model}", *places], check=True)
            print(f"{model}: {(time.perf_counter() - start) / 60:.1f} min, {reached(outputs)}", flush=True)


def reached(outputs: Path) -> str:
    (run,) = (outputs / "runs").glob("run_*")
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    steps = len((run / "history.csv").read_text().splitlines()) - 1
    lines = (json.loads(line) for line in (run / "record.jsonl").read_text().splitlines())
    params = {key: value for line in lines for key, value in line.get("params", {}).items()}
    way = f"{params['resolved.precision']} {params['resolved.layout']}"
    return f"{steps} epochs of {params['resolved.steps_per_epoch']} steps, Dice {metrics['test_dice']:.3f}, {way}"


if __name__ == "__main__":
    main()
