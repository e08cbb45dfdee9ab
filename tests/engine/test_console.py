"""The printed summary: whole in a file, whatever the classes are called."""

import pandas as pd
import pytest

from seg.engine.console import print_summary
from seg.metrics import METRICS, shown


@pytest.mark.parametrize(
    "name", ["[/b] tumour", "kidney [left]", "left adrenal gland, lateral limb and its nodule", "Ä"]
)
def test_a_class_may_have_any_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = dict.fromkeys(METRICS, 0.5) | {"case": "a", "class": name, "missed": 0, "false": 0, "present": 1}
    print_summary(pd.DataFrame([row, row | {"case": "b"}]), {"run": "a1b2"})
    head, line = capsys.readouterr().out.splitlines()[1:3]
    assert name in line
    assert all(metric.label in head for metric in shown().values())
    assert line.count("0.5") == len(shown())
    assert "…" not in line
