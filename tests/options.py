"""The options of a configuration group as they lie on disk, made small enough for tests."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from seg.config.options import CONF


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load(group: str, name: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"), resolve=True)


def small_network(name: str, dims: int, *, in_channels: int = 2, out_channels: int = 3, **changes: Any) -> Any:
    """The model option with an eighth of its channels, and little attention of its own."""
    node = load("model", name)
    if node.get("strides") == "auto":
        node["strides"] = [1, 2, 2, 2]
    elif "auto" in node.get("strides", []):
        node["strides"] = [2 for _ in node["strides"]]
    if "channels" in node:
        node["channels"] = [max(4, c // 8) for c in node["channels"]]
    if "width" in node:
        node["width"] = 12 if node["width"] % 12 == 0 else 8
    if "window_size" in node:  # a shifted window in the first stage only
        node |= {"depths": [2, 1, 1, 1], "window_size": 3}
    return instantiate(node | changes, in_channels=in_channels, out_channels=out_channels, dims=dims, _convert_="all")


def attention_block(name: str) -> Any:
    """What ``build`` makes of the option, and where it goes."""
    node = load("attention", name)
    where = node.pop("where")
    return instantiate(node, _convert_="all"), where


def smallest(network: Any) -> list[int]:
    """The least image the network takes: two units of its multiple."""
    return [2 * network.multiple[0], *network.multiple[1:]]
