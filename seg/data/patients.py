"""Whose scans belong together: by a pattern, by a table, or each for itself, with a warning where names look alike."""

import csv
import io
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from seg.data import volumes
from seg.errors import ConfigError, few, together

log = logging.getLogger(__name__)
NOBODY = ("", "na", "nan", "nat", "null", "none", "missing", "unknown")  # what tables hold where nothing is known
SUBJECT = r"^(sub-[A-Za-z0-9]+)_"  # of BIDS, where what follows is the session or another scan of the subject
TABLES = (".tsv", ".txt", ".xls", ".xlsx", ".ods")  # kept by others in place of .csv
RELATED = (  # what scans of one patient are often called, the plainest first; the group is the patient
    r"^(.+?)[_-]?(?:frame|ses|session|visit|scan|time|run|phase)[_-]?\d+",
    r"^(.+)[_-](?:[LlRr]|left|right|LEFT|RIGHT)$",
    r"^(?:[LlRr]|left|right|LEFT|RIGHT)[_-](.+)$",
    r"^(.+)[_-][^_-]+$",
    r"^([^_-]+)[_-]",
    r"^(.+)[.+\s(][^.+\s(]+$",
    r"^(.*?\d)(?:[A-Za-z]+\d*)?$",
)
PLAIN = RELATED[:3]


def patients_of(ids: Sequence[str], root: Path, patient: str | None) -> dict[str, str]:
    """The patient of each case; ``patient`` is a pattern with one group, or the path of a table, or None.

    Without it every case is a patient of its own, but those that BIDS gives to one subject.

    Raises:
        ConfigError: it does not name a patient for each case, or names two.
    """
    if patient is None:
        subjects = _matches(ids, SUBJECT)
        _warn([case_id for case_id in ids if case_id not in subjects])
        return {case_id: subjects.get(case_id, case_id) for case_id in ids}
    found = _table(root, patient) if patient.lower().endswith(".csv") else _matches(ids, patient)
    if missing := [case_id for case_id in ids if case_id not in found]:
        raise ConfigError(
            f"data.patient={patient!r} gives no patient for {len(missing)} of {len(ids)} cases: {few(missing)}."
        )
    return found


def related(ids: Sequence[str]) -> tuple[list[str], str] | None:
    """Cases of which one patient may have several, by their ids: the first such cases, and the pattern of the patient.

    None where ids do not look like it.
    """
    for pattern in RELATED:
        groups: dict[str, list[str]] = defaultdict(list)
        for case_id in ids:
            if match := re.search(pattern, case_id):
                groups[match[1]].append(case_id)
        most = max(map(len, groups.values()), default=0)
        patients = len(groups) + len(ids) - sum(map(len, groups.values()))
        # What more cases share than there would be patients is the name of a data set or of a hospital.
        if most > 1 and (pattern in PLAIN or most <= patients):
            return next(cases for cases in groups.values() if len(cases) > 1), pattern
    return None


def _warn(ids: Sequence[str]) -> None:
    """Says so where ids look as if one patient had several: such patients may be in two parts."""
    if found := related(ids):
        alike, pattern = found
        every = all(re.search(pattern, case_id) for case_id in ids)
        log.warning(
            "cases may be of one patient: %s. Each is taken for a patient of its own, so they may be in two parts. "
            "If they are one: data.patient=%s; if not: data.patient='^(.*)$'.",
            few(alike),
            f"'{pattern}'" if every else "patients.csv, a table with the columns case and patient",
        )


def _matches(ids: Sequence[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as e:
        raise ConfigError(f"data.patient={pattern!r} is not a regular expression: {e}.") from None
    if pattern.lower().endswith(TABLES) and not compiled.groups:
        raise ConfigError(f"data.patient={pattern!r}: a table is read as .csv only. Save it as 'CSV UTF-8'.")
    if compiled.groups != 1:
        raise ConfigError(f"data.patient={pattern!r} has {compiled.groups} groups; exactly one names the patient.")
    return {case_id: match[1] for case_id in ids if (match := compiled.search(case_id)) and match[1]}


def _table(root: Path, name: str) -> dict[str, str]:
    """Patients by case; faults name lines and cases, never the patients."""
    path = next((path for path in (Path(name).expanduser(), root / name) if path.is_file()), None)
    if path is None:
        raise ConfigError(f"data.patient: no file {name}, neither here nor in {root}.")
    faults: list[str] = []
    columns, rows = table_of(path, faults)
    if columns.count("case") != 1 or columns.count("patient") != 1:
        raise ConfigError(f"{path}: a table with the columns 'case' and 'patient' is needed.")
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        case, patient = volumes.stem(Path(row["case"])), row["patient"]
        if not case:
            faults.append(f"{path}: line {line} names no case.")
        elif _nobody(patient):
            faults.append(f"{path}: line {line} names no patient for case {case}.")
        elif case in lines:
            again = "" if found[case] == patient else ", and with another patient"
            faults.append(f"{path}: line {line} names case {case} again{again}; the first is line {lines[case]}.")
        else:
            found[case], lines[case] = patient, line
    together(ConfigError, [*faults, *_spelled_twice(path, found)])
    return found


def _nobody(patient: str) -> bool:
    """Whether a cell names no patient: no letter or digit, a word for nothing known, or an error of a spreadsheet."""
    return re.sub(r"\W", "", patient).lower() in NOBODY or bool(re.fullmatch(r"#\w+[!?]", patient))


def _spelled_twice(path: Path, found: dict[str, str]) -> list[str]:
    """Patients whose names may be two spellings of one, by their cases."""
    spellings: dict[str, dict[str, str]] = defaultdict(dict)
    for case, patient in found.items():
        spellings[_loosely(patient)].setdefault(patient, case)
    return [
        f"{path}: the patients of cases {few(cases.values())} differ in capital letters, punctuation, leading zeros or "
        "a final .0 only. Write one name one way."
        for cases in spellings.values()
        if len(cases) > 1
    ]


def _loosely(patient: str) -> str:
    """The name as spreadsheets may have changed it: ``007``, ``7.0``, ``'7`` and ``７`` are all 7."""
    text = re.sub(r"(?<=\d)\.0+$", "", normalize("NFKC", patient).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\W_]+", " ", text).strip())


def rows_of(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that hold anything, with their line numbers; cells are parted by commas, semicolons or tabs."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8 (at byte {e.start}). Save it as 'CSV UTF-8'.") from None
    first = text.split("\n", 1)[0]
    form: dict[str, Any] = {"delimiter": max(",;\t", key=first.count), "strict": True, "skipinitialspace": True}
    reader = csv.reader(io.StringIO(text, newline=""), **form)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as e:
        raise ConfigError(f"{path}: line {reader.line_num} is not readable as CSV ({e}).") from None


def columns_of(rows: list[tuple[int, list[str]]]) -> list[str]:
    """The columns of a table that ``rows_of`` read, in small letters."""
    return [clean(cell).lower() for _, head in rows[:1] for cell in head]


def table_of(path: Path, faults: list[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, in small letters, and its rows with their lines; rows of another length are faults.

    Raises:
        ConfigError: it cannot be read.
    """
    lines = rows_of(path)
    columns, rows = columns_of(lines), [(line, [*map(clean, cells)]) for line, cells in lines[1:]]
    faults += [
        f"{path}: line {line} has {len(cells)} cells, the heading has {len(columns)}."
        for line, cells in rows
        if len(cells) != len(columns)
    ]
    return columns, [(n, dict(zip(columns, cells, strict=True))) for n, cells in rows if len(cells) == len(columns)]


def spelled(base: Path, path: str) -> str:
    """A table's ``path`` below ``base`` as the files there spell it: with letters taken apart, or more blanks."""
    found = Path()
    for part in Path(path).parts:
        place = base / found
        beside = [] if (place / part).exists() or not place.is_dir() else place.iterdir()
        found /= next((one.name for one in beside if clean(one.name) == clean(part)), part)
    return str(found)


def clean(cell: str) -> str:
    """Without what cannot be seen: blanks around it or doubled, marks of no width, letters taken apart."""
    words = normalize("NFC", cell).split()
    return " ".join(filter(None, ("".join(c for c in word if category(c) not in ("Cf", "Cc")) for word in words)))
