"""The options in ``conf/``: where they are, and which keys they have."""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from seg.config.content import flat, keyed

if TYPE_CHECKING:
    from hydra.conf import ConfigSourceInfo

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
OPTIONS = ("model", "attention", "loss", "optimizer", "scheduler", "augmentation", "data")  # groups of seg.train


def known_keys(
    choices: Mapping[str, str | Sequence[str] | None], places: "Iterable[ConfigSourceInfo]", root: str
) -> dict[str, object]:
    """Every key that exists, with its value, as the files of the root and of the chosen options give it.

    A study's file and this machine's own settings set keys but make none. Composing again would take far longer.

    Args:
        choices: the option of each group.
        places: where Hydra looks for options.
        root: of the configuration.
    """
    folders = [
        Path(at.path) if at.schema == "file" else files(at.path) for at in places if at.schema in ("file", "pkg")
    ]
    known = keys_of_file(root, folders)
    for group, options in choices.items():
        if options and not group.startswith("hydra/") and group not in ("experiments", "local"):
            folder, _, place = group.partition("@")
            for option in [options] if isinstance(options, str) else options:
                known |= keys_of_file(f"{folder}/{option}", folders, place)
    return known


def keys_of_file(path: str, folders: Sequence[Traversable], place: str = "") -> dict[str, object]:
    """The keys that a file gives, those of the files that it builds on included.

    Args:
        path: of the file in the configuration, without suffix.
        folders: of options, the first that has it counts.
        place: the package after ``@`` where it was chosen; otherwise its first line or its group says it.
    """
    file = next((file for folder in folders if (file := folder / f"{path}.yaml").is_file()), None)
    if file is None:
        return {}
    text, folder = file.read_text("utf-8"), posixpath.dirname(path)
    content = keyed(OmegaConf.to_container(OmegaConf.create(text), resolve=False))
    header = re.search(r"^# *@package +(\S+)", text, re.MULTILINE)
    package = place or (header[1] if header else "_group_")
    package = package.replace("_group_", folder.replace("/", ".")).removeprefix("_global_").lstrip(".")
    known: dict[str, object] = {}
    bases = content.pop("defaults", [])
    for base in bases if isinstance(bases, list) else []:
        if isinstance(base, str) and base != "_self_":  # any other is a choice of its own
            file_name, _, at = base.partition("@")
            known |= keys_of_file(
                posixpath.join("/", folder, file_name)[1:], folders, f"{package}.{at}" if at else place
            )
    content.pop("hydra", None)
    return known | flat(content, f"{package}." if package else "")
