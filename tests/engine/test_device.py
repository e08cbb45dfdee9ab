"""Energy counters, where there are some."""

import math
from pathlib import Path

import pytest
import torch

from seg.engine import device
from seg.engine.device import joules


def test_the_processors_counters_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_RAPL", tmp_path)
    assert math.isnan(joules(torch.device("cpu")))
    for name, content in {"intel-rapl:0": "2500000", "intel-rapl:1": "500000", "intel-rapl:0:0": "99"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(content)
    assert joules(torch.device("cpu")) == 3.0
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("")
    assert joules(torch.device("cpu")) == 2.5
