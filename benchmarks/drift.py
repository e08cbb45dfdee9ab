"""How often ``seg.drift`` raises an alarm where nothing changed, and how often it finds what did.

``python -m benchmarks.drift`` simulates logs of scans beside 200 training cases and 200 earlier scans.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from seg.deploy.arrivals import Period, properties
from seg.deploy.drift import Drift, Limits, drift

TRAINING, LOGS, LOGS_ALIKE = 200, 50, 300  # logs of each kind; of those where nothing changed
SIZES = (20, 50, 200)  # scans of a log
LIMITS = Limits(effect=0.33, share=0.1, alpha=0.01)  # as conf/drift.yaml has them
CHANNELS = ("MRI",)
ALL = Period(None, None)
CHANGES: dict[str, dict[str, float]] = {
    "nothing": {},
    "3 mm slices in a third of the scans": {"thick": 1 / 3},
    "3 mm slices in all scans": {"thick": 1.0},
    "intensities up by half an SD": {"brighter": 0.5},
    "intensities up by one SD": {"brighter": 1.0},
    "a structure smaller by half an SD": {"smaller": 0.5},
    "a structure smaller by one SD": {"smaller": 1.0},
    "failed scans 2 → 10 %": {"failed": 0.10},
    "failed scans 2 → 20 %": {"failed": 0.20},
}


def scan(
    rng: np.random.Generator,
    *,
    thick: float = 0.0,
    brighter: float = 0.0,
    smaller: float = 0.0,
    failed: float = 0.02,
) -> dict[str, Any]:
    """A made-up scan as a row of a report: voxels of 1 mm, one in ten of 0.9 mm; three structures.

    Args:
        rng: of the scan.
        thick: share of scans with slices of 3 mm.
        brighter: by how many SD of the cases' gain all intensities are higher.
        smaller: by how many SD of its logarithm the first structure is smaller.
        failed: share of scans that fail.
    """
    side = 0.9 if rng.random() < 0.1 else 1.0
    spacing = [side, side, 3.0 if rng.random() < thick else side]
    gain, offset = np.exp(rng.normal(0.3 * brighter, 0.3)), rng.normal(0, 20)
    volumes = np.exp(rng.normal([1 - 0.4 * smaller, 2, 3], 0.4))
    if rng.random() < failed:
        return {
            "status": "failed",
            "scan": {"shape": [], "spacing_mm": [], "intensity": []},
            "volumes_ml": {},
            "confidence": {},
            "risk": "",
        }
    return {
        "status": "finished",
        "scan": {
            "shape": [int(240 / size) + int(rng.integers(-8, 9)) for size in spacing],
            "spacing_mm": spacing,
            "intensity": [[float(gain * level + offset) for level in (50, 90, 110, 130, 180)]],
        },
        "volumes_ml": dict(zip(("head", "body", "tail"), map(float, volumes), strict=True)),
        "confidence": {name: float(rng.beta(40, 2)) for name in ("head", "body", "tail")},
        "risk": "medium" if rng.random() < 0.05 else "low",
    }


def report(
    count: int, rng: np.random.Generator, first_day: str = "2026-10-01", **changes: float
) -> list[dict[str, Any]]:
    """Rows of a report: one scan an hour."""
    begin = datetime.fromisoformat(first_day).replace(tzinfo=UTC)
    about = {"package": "p" * 64, "error": "", "mask": "", "findings": [], "expected_dice": {}}
    return [
        about
        | scan(rng, **changes)
        | {
            "case": f"job-{first_day}-{n}",
            "inputs_sha256": f"{first_day}-{n}",
            "time": (begin + timedelta(hours=n)).isoformat(),
        }
        for n in range(count)
    ]


def learnt(count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Training cases as a package describes them."""
    rows = [scan(rng, failed=0.0) for _ in range(count)]
    return [row["scan"] | {"volumes_ml": row["volumes_ml"]} for row in rows]


def as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of a report as ``seg.deploy.arrivals`` has them, without the times."""
    return pd.DataFrame(
        properties(row["scan"], row["volumes_ml"], CHANNELS)
        | {f"confidence_{name}": value for name, value in row["confidence"].items()}
        | ({"failed": 1.0} if row["status"] == "failed" else {"failed": 0.0, "unusual": float(row["risk"] != "low")})
        for row in rows
    )


def judged(count: int, rng: np.random.Generator, **changes: float) -> Drift:
    """One log of ``count`` scans beside new training cases and an earlier log as long as they are."""
    cases = pd.DataFrame([properties(case, case["volumes_ml"], CHANNELS) for case in learnt(TRAINING, rng)])
    before, now = as_table(report(TRAINING, rng)), as_table(report(count, rng, **changes))
    return drift(now, [("training", cases), ("before", before)], ALL, LIMITS)


def main() -> None:
    print(f"share of the logs of {', '.join(map(str, SIZES))} scans with exit code 3")
    for words, changes in CHANGES.items():
        rng, logs = np.random.default_rng(0), LOGS if changes else LOGS_ALIKE
        print(f"{words} ({logs} logs)", end="", flush=True)
        for count in SIZES:
            alarms = sum(bool(judged(count, rng, **changes).beyond) for _ in range(logs))
            print(f"  {alarms / logs:.1%}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
