"""The errors a user may meet. Each message says what was seen, the rule, and the fix, naming the file or key.

SegError                exit code 1: the run could not continue
├── InterruptedRunError   the user or the cluster stopped the run
├── DriftError          exit code 3: what comes in is not what was learnt
└── InputError          exit code 2: what the user gave is wrong
    ├── ConfigError     a key, a value, or a combination of values
    └── DataError       a file, a folder, or what is in them
"""

import difflib
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit


class SegError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InterruptedRunError(SegError):
    """The user or the scheduler of a cluster asked the run to stop; it saved and can be resumed."""


class DriftError(SegError):
    """Scans that come in differ from those that were learnt, or that came in earlier, beyond the limit."""

    exit_code = 3


class InputError(SegError):
    """The user's input is wrong; nothing was trained."""

    exit_code = 2


class ConfigError(InputError):
    """A key, a value or a combination of values in the configuration is wrong."""


class DataError(InputError):
    """A file or a folder is missing, unreadable, or holds what it must not hold."""


def together(kind: type[InputError], faults: list[str], cause: Exception | None = None) -> None:
    """Raises one ``kind`` that lists every fault, from what caused them; does nothing where there is none."""
    if len(faults) == 1:
        raise kind(faults[0]) from cause
    if faults:
        listed = "\n".join(f"  {n}. {fault}" for n, fault in enumerate(faults, 1))
        raise kind(f"{len(faults)} faults:\n{listed}") from cause


def times(numbers: Iterable[float]) -> str:
    """Sizes in words: 48×64×48."""
    return "×".join(f"{number:g}" for number in numbers)


def counted(count: int, word: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def few(names: Iterable[str]) -> str:
    """The first five of many names, in order."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known word nearest to ``word``, or nothing."""
    known = list(known)
    match = difflib.get_close_matches(word, known, 1, 0.7)
    if not match:  # a right key in the wrong place: trainer.epochs for trainer.max_epochs, lr for optimizer.lr
        last = word.rpartition(".")[2]
        match = [key for key in known if key.rpartition(".")[2] == last or (len(last) > 2 and key.endswith(last))][:1]
    return f" Did you mean '{match[0]}'?" if match else ""


def without_passwords(text: str, address: str = "") -> str:
    """Replaces the password of every ``scheme://user:password@host`` and ``?password=…`` in ``text`` by ``***``.

    The secrets of ``address`` are found wherever they occur, as it spells them and as a library unquotes them.
    """
    parts = urlsplit(address)
    secrets = {parts.password or "", *(value for key, value in parse_qsl(parts.query) if "pass" in key)}
    for secret in sorted(filter(None, {*secrets, *map(unquote, secrets)}), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(\w+://[^\s:/@\"]*):[^\s\"]*@", r"\1:***@", text)
    text = re.sub(r"(\w+://)[^\s:/@\"]+@", r"\1***@", text)  # a token in place of a user
    return re.sub(r"(?i)([?&]\w*(?:password|passwd|pwd|token)=)[^&\s\"']+", r"\1***", text)
