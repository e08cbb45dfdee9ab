"""What came in, and when: the scans in the reports of ``seg.predict`` and ``seg.serve``, as numbers without names."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from seg.deploy.package import LEVELS, Json, Package
from seg.deploy.report import NAME, Row, read_report
from seg.errors import ConfigError, DataError, few, together

log = logging.getLogger(__name__)
SHARES = ("unusual", "failed")  # of scans; all other properties are numbers of one scan
TIME = "time"


@dataclass(frozen=True)
class Period:
    """Days, the last one left out; None: without such an end."""

    since: datetime | None
    until: datetime | None

    @classmethod
    def between(cls, since: str | None, until: str | None, key: str) -> "Period":
        """The period of two days such as 2026-10-01, in UTC.

        Raises:
            ConfigError: one of them is no day, or the second is not after the first.
        """
        try:
            first, last = (None if day is None else _utc(day) for day in (since, until))
        except ValueError:
            raise ConfigError(f"{key} is {since}..{until}; give days, such as 2026-10-01.") from None
        if first and last and first >= last:
            raise ConfigError(f"{key}: {until} is not after {since}, so no scan is between them.")
        return cls(first, last)

    @classmethod
    def parsed(cls, text: str, key: str) -> "Period":
        """The period that ``2026-07-01..2026-10-01`` means; ConfigError as ``between``."""
        since, dots, until = text.partition("..")
        if not (since and dots and until):
            raise ConfigError(f"{key} is {text}; give two days, such as 2026-07-01..2026-10-01.")
        return cls.between(since, until, key)

    def overlaps(self, other: "Period") -> bool:
        """Whether they share a day."""
        ends = ((self.until, other.since), (other.until, self.since))
        return not any(until and since and until <= since for until, since in ends)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The scans that came in then."""
        kept = pd.Series(True, index=table.index)
        if self.since:
            kept &= table[TIME] >= self.since
        if self.until:
            kept &= table[TIME] < self.until
        return table[kept]

    def __str__(self) -> str:
        first, last = (day and f"{day:%Y-%m-%d}" for day in (self.since, self.until))
        if first and last:
            return f"{first} to {last}"
        return f"since {first}" if first else f"before {last}" if last else "all days"


def reported(places: Sequence[Path]) -> list[Path]:
    """The folders with a ``report.json`` among ``places``, which are such files, or folders that hold some.

    Raises:
        DataError: with every place that has none.
    """
    found: list[Path] = []
    faults = []
    for place in places:
        own = [place.parent] if place.is_file() and place.name == NAME else []
        own += sorted(path.parent for path in place.rglob(NAME)) if place.is_dir() else []
        if not own:
            faults.append(
                f"{place}: there is no {NAME}. seg.predict writes one beside its masks, seg.serve in its log."
            )
        found += own
    together(DataError, faults)
    return list(dict.fromkeys(path.resolve() for path in found))


def arrivals(folders: Sequence[Path], package: Package) -> pd.DataFrame:
    """One row per scan that the network of ``package`` was given, earliest first: ``time``, and its ``properties``.

    A scan that was predicted several times counts once, when it first came; what other networks predicted does not.

    Raises:
        DataError: a report is damaged, or none is about this network.
    """
    own = {package.id, f"run_{package.origin['run_id']}"}
    rows = [row for folder in folders for row in read_report(folder).values()]
    mine = [row for row in rows if own & _networks(row)]
    if not mine:
        others = {str(row.get("package")) for row in rows}
        raise DataError(
            f"No scan in {few(map(str, folders))} was predicted by this network, {package.id or max(own)}"
            + (f", but {len(rows)} by {few(others)}." if others else ".")
        )
    if other := len(rows) - len(mine):
        log.info("%d scans of other networks are left out", other)
    try:
        table = pd.DataFrame([_arrival(row, package.channels) for row in mine])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise DataError(f"A report in {few(map(str, folders))} is damaged ({said}). Predict its scans again.") from None
    table = table.sort_values(TIME, kind="stable", ignore_index=True)
    again = table["sha256"].ne("") & table["sha256"].duplicated()
    return table[~again].drop(columns="sha256").reset_index(drop=True)


def _networks(row: Row) -> set[str]:
    """Those that predicted a scan together, of runs without their weights."""
    return {one.partition("@")[0] for one in str(row.get("package")).split("+")}


def learnt(package: Package) -> pd.DataFrame:
    """The same properties of the training cases, as far as a label and a scan have them."""
    return pd.DataFrame([properties(case, case["volumes_ml"], package.channels) for case in package.training])


def properties(scan: Json, volumes_ml: Mapping[str, float], channels: Collection[str]) -> dict[str, float]:
    """Voxel sizes and field of view in mm (axes in RAS order), intensities in the structures, volumes in ml.

    With three digits, for headers are rounded: 0.4882812 mm in one file is 0.488 in the next.
    """
    sizes, shape = scan["spacing_mm"], scan["shape"]
    found = {f"voxel_mm_{axis}": size for axis, size in zip("xyz", sizes, strict=False)}
    found |= {f"field_mm_{axis}": size * count for axis, size, count in zip("xyz", sizes, shape, strict=False)}
    for channel, values in zip(channels, scan["intensity"], strict=False):
        found |= {f"intensity_p{level}_{channel}": value for level, value in zip(LEVELS, values, strict=True)}
    found |= {f"volume_ml_{name}": volume for name, volume in volumes_ml.items()}
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def _arrival(row: Row, channels: Collection[str]) -> Row:
    failed = row["status"] == "failed"
    found: Row = {TIME: _utc(row["time"]), "sha256": row["inputs_sha256"]}
    found |= properties(row["scan"], row["volumes_ml"], channels)
    found |= {f"confidence_{name}": float(f"{value:.3g}") for name, value in row["confidence"].items()}
    return found | ({"failed": 1.0} if failed else {"failed": 0.0, "unusual": float(row["risk"] != "low")})


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
