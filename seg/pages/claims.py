"""What becomes of a study's claims: whether it was locked and kept to, and how often its cases have been read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg.records.readings import note_reading
from seg.study.analysis import Analysis
from seg.study.lock import FILE, changes_since, judged
from seg.study.question import Asked

if TYPE_CHECKING:
    import pandas as pd

    from seg.study.sequential import Look


def with_claims(
    analysis: Analysis,
    asked: Asked,
    table: "pd.DataFrame",
    every: "pd.DataFrame",
    looks: "Sequence[Look]",
    folder: Path,
    outputs: Path,
) -> Analysis:
    """The analysis with what is said of its claims: CONFIRMED, REFUTED, UNDECIDED or CHANGED, or else exploratory.

    Args:
        analysis: of the study.
        asked: its question.
        table: its finished runs.
        every: all runs of the sweep, its own among them.
        looks: that it has had, where seeds are added until it is decided.
        folder: of the study.
        outputs: holds the ledger of readings.
    """
    own = every[every["run_id"].isin(table["parent"])]
    recorded, reader, ended = "", asked.sweep, False
    if len(own):
        line = own.iloc[0]
        reader, ended = str(line["run_id"]), line["status"] == "FINISHED"
        recorded = str(line.get("params.lock", "")).removeprefix("sha256:").replace("nan", "")
    read = note_reading(outputs, asked.part, kind="study", reader=reader, name=asked.name, folder=folder)
    if asked.lock or recorded or (folder / FILE).exists():
        changed = changes_since(folder, recorded, asked, table, ended, looks)
        analysis = judged(analysis, asked, recorded, changed, read.place(reader), looks)
    else:
        analysis = _told(analysis, "Exploratory: it was not locked before its first run (lock: true).")
    subject = "This test part has" if analysis.meta.part == "of the test part" else "These cases have"
    return _told(analysis, *read.told(subject))


def _told(analysis: Analysis, *sentences: str) -> Analysis:
    return replace(analysis, meta=replace(analysis.meta, claims=(*analysis.meta.claims, *sentences)))
