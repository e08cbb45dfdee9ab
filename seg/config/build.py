"""From a section of the configuration to the object that its ``_target_`` names, where that may be run.

A ``_target_`` is code that runs, and a configuration may come from elsewhere: a study's file, a run's folder. So a
target is one of ours, one of MONAI's or PyTorch's parts, one that a file in ``conf/`` names, or one that the user
allowed by name. Nothing else is even imported.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from seg.config.content import first_line, keyed, plain_value
from seg.config.options import CONF
from seg.errors import ConfigError, SegError, together

_OURS = (
    *("seg.models", "seg.losses", "seg.optimizers", "seg.schedulers"),
    *("seg.data.augmentation", "seg.data.cases", "seg.data.phantom"),
)
_THEIRS = ("monai.transforms", "monai.networks", "monai.losses", "torch.nn", "torch.optim")  # their classes only
_NEVER = (  # these run any code themselves
    "monai.transforms.io",  # imports and calls a reader given by its dotted path
    "monai.losses.perceptual",  # downloads code by torch.hub
)
_allowed: set[str] = set()  # in this process, by its user: packages, modules, or whole targets


@contextmanager
def allowing(names: Collection[str]) -> Iterator[None]:
    """Within it, targets in these packages or modules may be built too; the user must have named them himself."""
    added = {*names} - _allowed
    _allowed.update(added)
    try:
        yield
    finally:
        _allowed.difference_update(added)


def build(node: object, **arguments: object) -> Any:
    """Builds what the section's ``_target_`` names, and what is named within it; the only place that instantiates.

    With ``_partial_: true`` the target is not called: what comes back waits for the rest of its arguments.

    Args:
        node: a section with ``_target_``, or plain containers that hold such sections.
        arguments: given to the target beside the section's own values.

    Raises:
        ConfigError: a target may not be built, does not exist, or refuses an argument.
    """
    values = plain_value(node)
    together(ConfigError, refused(targets(values)))
    return _built(values, arguments)


def _built(values: object, arguments: Mapping[str, object]) -> Any:
    if isinstance(values, list):
        return [_built(item, {}) for item in values]
    if not isinstance(values, dict):
        return values
    given = {str(k): _built(v, {}) for k, v in values.items() if k not in ("_target_", "_partial_")} | {**arguments}
    if "_target_" not in values:
        return given
    made = partial(named(str(values["_target_"])), **given)
    if values.get("_partial_"):
        return made
    try:
        return made()
    except (SegError, OSError):
        raise
    except Exception as error:
        raise ConfigError(f"{values['_target_']} cannot be built from its section: {first_line(error)}.") from error


def refused(found: Iterable[tuple[str, str]], ours: Collection[str] = (*_OURS, *_THEIRS)) -> list[str]:
    """A fault for each target that may not be built; imports nothing.

    Args:
        found: keys and their targets.
        ours: packages whose targets need no permission.
    """
    doubtful = [(key, target) for key, target in found if not _lies_in(target, (*ours, *_allowed))]
    known = _named_in_conf() if doubtful else set()
    return [_refusal(key, target) for key, target in doubtful if target not in known]


def targets(node: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Every ``_target_`` within plain containers, with its key."""
    if isinstance(node, dict):
        for key, value in node.items():
            at = f"{place}.{key}" if place else str(key)
            if key == "_target_":
                yield at, str(value)
            yield from targets(value, at)
    elif isinstance(node, list | tuple):
        for number, item in enumerate(node):
            yield from targets(item, f"{place}[{number}]")


def named(path: str, key: str = "_target_") -> Callable[..., Any]:
    """What the dotted ``path`` names, in a module or in a class of one.

    Args:
        path: of a function or class.
        key: that holds it, for a message.

    Raises:
        ConfigError: it may not be used, there is nothing of that name, or it cannot be imported.
    """
    together(ConfigError, refused([(key, path)]))
    found = _imported(path, key)
    if not (path in _allowed or _at_home(found) or path in _named_in_conf()):
        raise ConfigError(_refusal(key, path))
    return found


def _at_home(found: object) -> bool:
    """Whether an object was defined where targets may be: ``seg.losses.torch.load`` only looks like one of ours."""
    home = str(getattr(found, "__module__", ""))
    if not (inspect.isclass(found) or inspect.isfunction(found)) or _lies_in(home, _NEVER):
        return False
    return _lies_in(home, (*_OURS, *_allowed)) or (inspect.isclass(found) and _lies_in(home, _THEIRS))


def _lies_in(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _refusal(key: str, target: str) -> str:
    package = target.partition(".")[0]
    return (
        f"{key} is {target}, which could run any code: only parts of seg, MONAI and PyTorch, and what a file of conf/ "
        f"names, need no permission. If you trust it, add allow_targets=[{package}], here or in local/default.yaml "
        f'(in Python: trusted=["{package}"]).'
    )


@functools.cache
def _named_in_conf() -> set[str]:
    """The targets in the files of ``conf/``, which are installed as the code is: options of the user's own too."""
    options = [keyed(OmegaConf.to_container(OmegaConf.load(file))) for file in CONF.glob("*/*.yaml")]
    return {target for option in options for _, target in targets(option)} | {str(o.get("kind")) for o in options}


def _imported(path: str, key: str) -> Callable[..., Any]:
    module, names = path, list[str]()
    while module:
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ConfigError(f"{key} is {path}, which needs what is not here: {error}.") from error
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            continue
        with suppress(AttributeError):
            target: Callable[..., Any] = functools.reduce(getattr, names, found)
            return target
        break
    raise ConfigError(f"There is no {path}. {key} is the full path of a function or class that can be imported.")
