"""How every ``python -m seg.<verb>`` starts and ends: its ``key=value``, one message for an error, its exit code.

Only omegaconf and the standard library are imported here, so that a verb answers at once.
"""

import errno
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from textwrap import indent
from typing import NoReturn

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg.config.build import allowing
from seg.config.content import first_line, flat, keyed, number
from seg.config.options import CONF
from seg.config.trust import local_settings
from seg.errors import ConfigError, DataError, SegError, nearest, together, without_passwords

_LOCAL = ("paths.", "tracking.uri", "allow_targets", "card.")  # what local/default.yaml sets for every command
_USERS_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


def verb(name: str, main: Callable[[DictConfig], None], lists: Collection[str] = ()) -> Callable[[], None]:
    """The command ``python -m seg.<name>``; ``conf/<name>.yaml`` holds its keys, their defaults and what they mean.

    Of the keys, ``lists`` and ``allow_targets`` may have several values.
    """

    def run() -> None:
        with exits():
            own, paths = ((CONF / file).read_text("utf-8") for file in (f"{name}.yaml", "paths/default.yaml"))
            text = f"{own}paths:\n{indent(paths, '  ')}"
            if {"-h", "--help"} & {*sys.argv[1:]}:
                print(text, end="")
            else:
                cfg = read(text, sys.argv[1:], local_settings())
                several = {key for key, value in _values(cfg).items() if isinstance(value, list)}
                wrong = several - {*lists, "allow_targets"}
                together(ConfigError, [f"{key} is a list; it takes one value." for key in sorted(wrong)])
                allowed = cfg.get("allow_targets") or ()
                with allowing([allowed] if isinstance(allowed, str) else allowed):
                    main(cfg)

    return run


def read(text: str, arguments: Sequence[str], local: Mapping[str, object] | None = None) -> DictConfig:
    """The keys of ``text``, in YAML, with the values that ``arguments`` give them as ``key=value``.

    Where the default is a number or a truth value, the value must be one too. Anything else is text exactly as it was
    typed, be it a run id such as 12e45678 or a path with blanks, or a list of texts in brackets. Quotes around a text
    are removed.

    Args:
        text: keys and their defaults.
        arguments: of the command line.
        local: this machine's own settings; of these only places and permissions are for every command.

    Raises:
        ConfigError: with every unknown key and every value of the wrong type.
    """
    cfg = DictConfig(OmegaConf.create(text))
    known = _values(cfg)
    for key in known.keys() & (local or {}).keys():
        if key.startswith(_LOCAL):
            OmegaConf.update(cfg, key, (local or {})[key])
    faults = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            faults.append(f"'{argument}' is not of the form key=value. --help prints every key.")
        elif key not in known:
            faults.append(f"There is no key '{key}'.{nearest(key, list(known))} --help prints every key.")
        else:
            try:
                OmegaConf.update(cfg, key, _value(value, known[key]))
            except ValueError as error:
                faults.append(f"{key} is {value}; it must be {error}.")
    together(ConfigError, faults)
    OmegaConf.set_struct(cfg, True)
    return cfg


def _values(cfg: DictConfig) -> dict[str, object]:
    return flat(keyed(OmegaConf.to_container(cfg)))


def _value(text: str, default: object) -> object:
    """What a user means by ``text`` for a key with this default; ValueError names the type that it should have."""
    if text == "null" and default is None:
        return None
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if isinstance(default, int | float):
        if isinstance(value := number(text), str):
            raise ValueError("a number")
        return value
    if text[:1] in ("[", "'", '"'):
        with suppress(yaml.YAMLError):  # a folder may be called [x
            return yaml.load(text, yaml.BaseLoader)
    return str(Path(text).expanduser()) if text.startswith("~/") else text


@contextmanager
def exits(after: str = "then run the command again") -> Iterator[None]:
    """Ends the process with one message for an error: with 2 where the user's input is wrong, otherwise with 1.

    Args:
        after: what the user does once there is room on the disk.
    """
    _opened()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ± and – gets ?, not a traceback
    try:
        yield
    except BrokenPipeError:  # ``| head`` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OmegaConfBaseException as error:
        _end(ConfigError(f"{first_line(error, where=True)}."))
    except yaml.YAMLError as error:
        _end(ConfigError(f"A YAML file cannot be read: {' '.join(str(error).split())}."))
    except OSError as error:
        _end(of_the_disk(error, after))
    except SegError as error:
        _end(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(1)


def _opened() -> None:
    """Where a stream is closed (``2>&-``) it goes nowhere, and no file of ours takes its number and what is printed."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))


def of_the_disk(error: OSError, after: str) -> DataError:
    """What a full or closed disk means to the user; any other error goes on its way."""
    if isinstance(error, FileNotFoundError) and not error.filename:  # getcwd
        return DataError("The working folder is no longer there. Change to a folder that is.")
    if error.errno not in _USERS_DISK and "written" not in str(error):  # NumPy's word for a full disk
        raise error
    reason = f"{error.strerror or 'The disk is full'}: {error.filename or 'the outputs'}"
    fix = "Make room, or choose"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "Ask for access to it, or choose"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        fix = "Choose"
    return DataError(f"{reason}. {fix} another place by the key that names it (paths.outputs, paths.cache …); {after}.")


def _end(error: SegError) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # under torchrun every process would print the same
        print(f"\nerror: {without_passwords(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)
