"""What a ledger shows of its trials, and which of them count."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
_ATTRS = ("run_id", "predictions", "error")


def shown(trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
    """Without what was given up as surplus, and what was entered twice by two processes at once."""
    names: set[str] = set()
    out = []
    for trial in trials:
        name = trial.user_attrs.get("job", f"drawn {trial.number}")
        if name not in names and not trial.user_attrs.get("surplus"):
            out.append(trial)
        names.add(name)
    return out


def retried(trials: "Sequence[FrozenTrial]") -> set[int]:
    """The numbers of those that were entered once more."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}


def counted(trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
    """Those that have finished or may do so; of one that was entered again, the new one."""
    again = retried(trials)
    return [trial for trial in shown(trials) if trial.state.name != "FAIL" and trial.number not in again]


def params(trial: "FrozenTrial") -> dict[str, Any]:
    """The values of a trial, or what is known of them before it is taken."""
    known: dict[str, Any] = trial.user_attrs.get("params") or trial.system_attrs.get("fixed_params", {}) | trial.params
    return known


def frame(trials: "Sequence[FrozenTrial]", objectives: Sequence[str], keys: Iterable[str]) -> "pd.DataFrame":
    """A row a trial, as ``Ledger.frame`` says; ``keys`` are the parameters known beforehand."""
    import pandas as pd

    again = retried(trials)
    keys = list(dict.fromkeys([*keys, *(key for trial in trials for key in params(trial))]))
    rows = []
    for trial in trials:
        values = trial.values or [None] * len(objectives)
        row = {"number": trial.number, "state": STATES[trial.state.name], **dict(zip(objectives, values, strict=True))}
        row |= dict.fromkeys(keys) | params(trial)
        row |= {key: trial.user_attrs.get(key) for key in _ATTRS}
        row |= {"attempt": trial.user_attrs.get("attempt", 1), "retried": trial.number in again}
        row |= {"started": trial.datetime_start, "seconds": trial.duration.total_seconds() if trial.duration else None}
        rows.append(row)
    columns = ["number", "state", *objectives, *keys, "run_id", "predictions", "attempt", "retried", "started"]
    table = pd.DataFrame(rows, columns=[*columns, "seconds", "error"])
    table = table.astype(dict.fromkeys([*objectives, "seconds"], float) | {"retried": bool})
    for key in _ATTRS:  # None where there is none, which pandas would make NaN
        table[key] = table[key].astype(object).where(table[key].notna(), None)
    table.attrs["parameters"] = keys
    return table
