"""Energy counters, where there are some."""

from pathlib import Path

import pytest
import torch

from seg.engine import energy
from seg.engine.energy import joules, kwh


def test_the_processors_counters_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_RAPL", tmp_path)
    assert joules(torch.device("cpu")) is None
    for name, content in {"intel-rapl:0": "2500000", "intel-rapl:1": "500000", "intel-rapl:0:0": "99"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(content)
    assert joules(torch.device("cpu")) == 3.0
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("")
    assert joules(torch.device("cpu")) == 2.5


def test_kilowatt_hours() -> None:
    assert kwh(1e6, 4.6e6) == pytest.approx(1.0)
    assert kwh(None, 1.0) is None
    assert kwh(5.0, 1.0) is None, "the counter began anew"
