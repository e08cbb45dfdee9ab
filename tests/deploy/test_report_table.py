"""``report.csv``: what a reader of the table alone is told."""

import csv
from pathlib import Path

from seg.deploy.report import unfinished, write_report


def test_the_table_tells_the_unit_of_pictures_and_the_interval_of_the_expected_dice(tmp_path: Path) -> None:
    seen = {"shape": [64, 48, 1], "spacing_mm": [1, 1, 1], "unit": "pixels", "intensity": []}
    picture = unfinished("a", by="run") | {"status": "finished", "scan": seen, "volumes_ml": {"cell": 1.5}}
    picture["expected_dice"] = {"cell": [0.8, 0.7, 0.95], "rare": [0.6, None, None]}
    write_report(tmp_path, {"a": picture, "b": unfinished("b", by="run")})
    found, failed = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert (found["shape"], found["spacing_mm"], found["unit"], failed["unit"]) == ("64×48×1", "1×1×1", "pixels", "")
    assert [found[f"expected_dice_cell{end}"] for end in ("", "_low", "_high")] == ["0.8", "0.7", "0.95"]
    assert [found[f"expected_dice_rare{end}"] for end in ("", "_low", "_high")] == ["0.6", "", ""]
    assert found["volume_ml_cell"] == "1.5"
