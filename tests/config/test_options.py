from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from seg.config.content import flat
from seg.config.options import CONF, known_keys


def test_the_keys_that_exist_are_those_of_the_chosen_options_and_of_a_users_own(tmp_path: Path) -> None:
    for path, text in {
        "model/mine": "defaults: [unet, own@body]\nwidth: 8\n",
        "model/own": "depth: 2\n",
        "neck/wide": "# @package model.neck\nblocks: 3\n",
        "local/default": "# @package _global_\noptimizer: {lrr: 1}\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / f"{path}.yaml").write_text(text)
    mine = ["model=mine", "+neck=wide", "data=hippocampus", "optimizer=adamw", f"hydra.searchpath=[file://{tmp_path}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=mine, return_hydra_config=True)
    known = known_keys(cfg.hydra.runtime.choices, cfg.hydra.runtime.config_sources, "train")
    with open_dict(cfg):
        del cfg["hydra"], cfg["optimizer"]["lrr"], cfg["attention"]
    assert known == flat(OmegaConf.to_container(cfg, resolve=False))
    assert {"model.width", "model.body.depth", "model.channels", "model.neck.blocks", "data.cases._target_"} <= {*known}
