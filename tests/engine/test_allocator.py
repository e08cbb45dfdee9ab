"""What a run imports is left out of the search for garbage; what else there is then is not."""

import gc
from pathlib import Path

import pytest

from seg.engine.allocator import imports


def test_only_what_is_newly_imported_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_this_test.py").write_text("kept = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    for _ in range(2):
        with imports():
            assert not gc.isenabled()
            import of_this_test
        assert gc.isenabled()
        frozen, garbage = gc.get_freeze_count(), [[] for _ in range(1000)]
    assert frozen >= before + len(of_this_test.kept)
    with imports():
        pass
    assert gc.get_freeze_count() <= frozen + len(garbage) // 2
    gc.unfreeze()
