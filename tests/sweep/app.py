"""A stand-in for seg.train in sweeps: each trial does what its ``arm`` says, without a network.

``python tests/sweep/app.py -m arm=well,fail``. The value of a trial is ``seed / 10``, or 0.5 plus an epoch's hundredth.
"""

import json
import os
import random
import signal
import sys
import time
import uuid
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from seg.config.compose import entry
from seg.errors import ConfigError, InterruptedRunError, SegError
from seg.files import atomic_write
from seg.records.folder import RunFolder, claim
from seg.records.journal import Journal
from seg.records.state import Process, State, write_state
from seg.sweep.trial import current_trial


def stop(*_: object) -> None:
    raise InterruptedRunError("stopped, as a training that hears the signal")


def tested(folders: RunFolder, cfg: DictConfig, sweep: str, dice: float) -> None:
    """Leaves what a training leaves that was scored on 20 patients, all of them about ``dice``, whatever its seed."""
    state = State("none", None, "folder/x", f"s{cfg.seed}", "FINISHED", Process.this())
    tags = {"study": cfg.study, "sweep": sweep, "arm": cfg.arm, "seed": str(cfg.seed), "fold": str(cfg.data.fold)}
    Journal(folders.run).append({"tags": tags})
    luck = random.Random(f"{cfg.arm} {cfg.seed} {cfg.data.fold}")
    known = [random.Random(f"{cfg.arm} {patient}").gauss(dice, 0.004) for patient in range(20)]
    shift = luck.gauss(0, 0.003)
    rows = [f"p{n},p{n},liver,{own + shift + luck.gauss(0, 0.003)},0.9,1.0,0,0" for n, own in enumerate(known)]
    head = "case,patient,class,dice,nsd,hd95_mm,missed,false"
    atomic_write(folders.run / "data/cases.csv", "\n".join([head, *rows, ""]))
    write_state(folders.run, state)


def main(cfg: DictConfig) -> float:
    trial = current_trial(HydraConfig.get().runtime.output_dir)
    assert trial is not None
    metrics: dict[str, float] = {}
    with trial.reported(metrics):
        outputs = Path(cfg.paths.outputs)
        act, _, number = str(cfg.arm).partition("_")
        if act == "prepare":
            (outputs / "prepares").touch()
            time.sleep(float(number))
        if act == "early":
            raise SegError("no memory left")
        begun = trial.begun
        folders = claim(outputs, uuid.uuid4().hex)
        trial.begin(folders)
        cfg.dims = 3  # as a training settles it
        atomic_write(folders.run / "config/config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        log = {"arm": cfg.arm, "seed": cfg.seed, "pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}
        log |= {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "job": os.environ.get("SLURM_JOB_ID")}
        log |= {"parent": trial.assignment.parent, "begun": begun}
        with (outputs / "acts.jsonl").open("a") as file:
            file.write(json.dumps(log | {"trial": trial.assignment.number, "fold": cfg.data.fold}) + "\n")
        value = cfg.seed / 10
        while act == "wait" and not (outputs / "go").exists():
            time.sleep(0.05)
        if act == "heard":  # as a training does whose last step is behind it
            trial.stop()
        if act == "sleep":
            time.sleep(float(number))
        if act == "fail":
            raise SegError("the loss is not finite")
        if act == "wrong":
            raise ConfigError("data.patch does not suit")
        if act == "crash":
            raise ZeroDivisionError("division by zero")
        if act == "once" and not (outputs / "failed_once").exists():
            (outputs / "failed_once").touch()
            raise SegError("the first try fails")
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "hang" and not (outputs / "hung").exists():
            (outputs / "hung").touch()
            time.sleep(600)
        if act in ("save", "yield") and begun is None:
            (folders.run / "checkpoints").mkdir()
            (folders.run / "checkpoints/last.pt").touch()
            if act == "yield":
                signal.signal(signal.SIGTERM, stop)
            (outputs / "saved").touch()
            time.sleep(600)
        if act == "score":
            tested(folders, cfg, trial.assignment.sweep, float(number))
        if act == "nan":
            value = float("nan")
        for epoch in range(1, 11):
            metrics |= {"val_dice": value + epoch / 1000, "params": 1000.0 - cfg.seed, "seconds": 1.0}
            if trial.epoch({"epoch": epoch, **metrics}):
                break
    return value


run = entry("train", main)

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    run()
