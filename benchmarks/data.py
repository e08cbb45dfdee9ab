"""The real scans that benchmarks prefer, and the phantom where they are not there."""

import os
from pathlib import Path


def options(outputs: Path) -> list[str]:
    """Overrides that choose Hippocampus from $SEG_HIPPOCAMPUS or ../shared/data, else the phantom."""
    root = Path(os.environ.get("SEG_HIPPOCAMPUS", "../shared/data/Task04_Hippocampus"))
    chosen = (
        ["data=hippocampus", f"data.root={root.resolve()}"] if (root / "dataset.json").exists() else ["data=phantom"]
    )
    print(f"data: {chosen[0]}")
    return [*chosen, f"paths.outputs={outputs}", "tracking=none"]
