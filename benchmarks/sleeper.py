"""A trial that sleeps instead of training: every other one three times as long. For benchmarks/sweeps.py."""

import json
import time
import uuid
from pathlib import Path

import psutil
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from seg.config.compose import entry
from seg.files import atomic_write
from seg.records.folder import claim
from seg.sweep.trial import current_trial


def main(cfg: DictConfig) -> None:
    began = time.time()
    folder = Path(HydraConfig.get().runtime.output_dir)
    seconds = cfg.trainer.max_minutes * 60 * (3 if cfg.seed % 2 else 1)
    if trial := current_trial(str(folder)):
        with trial.reported({"val_dice": 0.5}):
            folders = claim(Path(cfg.paths.outputs), uuid.uuid4().hex)
            atomic_write(folders.run / "config/config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
            trial.begin(folders)
            time.sleep(seconds)
    else:  # another sweeper's job
        time.sleep(seconds)
    times = {"born": psutil.Process().create_time(), "began": began, "ended": time.time()}
    (folder / "times.json").write_text(json.dumps(times))


run = entry("train", main)

if __name__ == "__main__":
    run()
