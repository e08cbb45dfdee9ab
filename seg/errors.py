"""The errors a user may meet. Each message says what was seen, the rule, and the fix, naming the file or key.

SegError                exit code 1: the run could not go on
└── InputError          exit code 2: what the user gave is wrong
    ├── ConfigError     a key, a value, or a combination of values
    └── DataError       a file, a folder, or what is in them
"""


class SegError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(SegError):
    """The user's input is wrong; nothing was trained."""

    exit_code = 2


class ConfigError(InputError):
    """A key, a value or a combination of values in the configuration is wrong."""


class DataError(InputError):
    """A file or a folder is missing, unreadable, or holds what it must not hold."""


def together(kind: type[InputError], faults: list[str]) -> None:
    """Raises one ``kind`` that lists every fault; does nothing where there is none."""
    if len(faults) == 1:
        raise kind(faults[0])
    if faults:
        raise kind(f"{len(faults)} faults:\n" + "\n".join(f"  {n}. {fault}" for n, fault in enumerate(faults, 1)))
