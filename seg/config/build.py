"""From a section of the configuration to the object that its ``_target_`` names."""

import functools
import importlib
from contextlib import suppress
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from seg.errors import ConfigError, SegError


def build(node: Any, **arguments: Any) -> Any:
    """Builds what the section's ``_target_`` names, and what is named within it; the only place that instantiates.

    With ``_partial_: true`` the target is not called: what comes back waits for the rest of its arguments.

    Args:
        node: a section with ``_target_``, or plain containers that hold such sections.
        arguments: given to the target beside the section's own values.

    Raises:
        ConfigError: the target does not exist or refuses an argument.
    """
    values = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if isinstance(values, list):
        return [build(item) for item in values]
    if not isinstance(values, dict):
        return values
    given: dict[str, Any] = {
        str(k): build(v) for k, v in values.items() if k not in ("_target_", "_partial_")
    } | arguments
    if "_target_" not in values:
        return given
    made = partial(named(values["_target_"]), **given)
    if values.get("_partial_"):
        return made
    try:
        return made()
    except (SegError, OSError):
        raise
    except Exception as error:
        raise ConfigError(f"{values['_target_']} cannot be built from its section: {error}") from error


def named(path: str) -> Any:
    """What the dotted ``path`` names, in a module or in a class of one.

    Raises:
        ConfigError: there is nothing of that name, or it cannot be imported.
    """
    module, names = path, list[str]()
    while module:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ConfigError(f"{path} cannot be imported: {error}.") from error  # something that it needs
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            continue
        with suppress(AttributeError):
            return functools.reduce(getattr, names, found)
        break
    raise ConfigError(f"There is no {path}. A _target_ is the full path of a function or class that can be imported.")
