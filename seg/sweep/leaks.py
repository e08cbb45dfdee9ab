"""What makes a study's scores too good: refused before it trains, unless its file allows it by name."""

from collections.abc import Iterator

from seg.config.content import flat
from seg.config.schema import followers
from seg.data.leaks import FIX, Leak
from seg.data.patients import related
from seg.engine.cases import Material, find_leaks
from seg.errors import DataError, few, nearest, together
from seg.sweep.definition import Sweep
from seg.sweep.rules import WHERE


def allowed_leaks(asked: Sweep, material: Material) -> tuple[str, ...]:
    """What a study's readers must know of leaks: those that its file allows, and names that look like one.

    Nothing for another sweep.

    Raises:
        DataError: with every leak that is not allowed, and every one that is allowed and not there.
    """
    if asked.study is None:
        return ()
    allowed = asked.study.allow_leaks
    found = {leak.name: leak for leak in (*find_leaks(asked.cfg, material), *_of_validation(asked))}
    faults = [str(leak) for name, leak in found.items() if name not in allowed]
    if faults:
        names = ", ".join(found)
        faults[-1] += f"\n{FIX} What may stay as it is, allow by name in the study's file: allow_leaks: [{names}]"
    idle = [name for name in allowed if name not in found]
    faults += [
        f"{WHERE}.allow_leaks names {name}, which is no leak here.{nearest(name, found)} Leave it out." for name in idle
    ]
    together(DataError, faults)
    remarks = [f"The study allows a leak: {leak}." for leak in found.values()]
    alone = [case.id for case in material.cases.cases if case.patient == case.id]
    if asked.cfg.data.patient is None and (alike := related(alone)):
        remarks.append(
            f"Cases may be of one patient by their names: {few(alike[0])}. Each counts as a patient of its own."
        )
    return tuple(remarks)


def _of_validation(asked: Sweep) -> Iterator[Leak]:
    """Arms that choose by the very cases that they are then scored on."""
    scored = [cfg for cfg in asked.examples.values() if cfg.inference.part == "val"]
    if by := {str(cfg.arm): used for cfg in scored if (used := followers(flat(cfg)))}:
        options = few({option for used in by.values() for option in used})
        yield Leak(
            "validation",
            f"{few(by)} follow the Dice of the fold that is then scored ({options}), which favours them",
        )
