"""A study that is locked: what it commits itself to is written, hashed and recorded before its first run, once."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_design import FILE, run, sweeps
from test_sweeper import Sweeps

from seg.config.content import config_hash
from seg.config.schema import check
from seg.files import digest, unseal
from seg.records.readings import readings
from seg.study.question import Asked
from seg.sweep import lock

__all__ = ["sweeps"]  # a fixture
LOCKED = FILE + "lock: true\nmargin: 0.01\nseeds: [0, 3]\n"


def params(sweeps: Sweeps) -> dict[str, str]:
    """Of the study's own run."""
    found: dict[str, str] = {}
    for path in sweeps.outputs.glob("runs/*/record.jsonl"):
        for line in path.read_text().splitlines():
            found = json.loads(line).get("params", {}) | found
    return found


@pytest.mark.slow
def test_what_it_commits_itself_to_is_known_before_its_first_run(sweeps: Sweeps, phantom_root: Path) -> None:
    said = run(sweeps, file=LOCKED)
    content = unseal((sweeps.folder / "lock.json").read_bytes())
    assert f"lock.json, sha256 {digest(content)}" in said
    assert said.index("locked before the first run") < said.index("trial 0")
    assert params(sweeps)["lock"] == f"sha256:{digest(content)}"
    asked = Asked.read(sweeps.folder)
    assert asked.lock
    assert content["asked"]["margin"] == asked.margin == 0.01
    assert content["stop"]["seeds"] == [0, 3]
    assert {"git_commit", "code_hash"} == set(content["code"])
    planned = {(one["arm"], one["seed"]): one for one in content["runs"]}
    assert set(planned) == {(act["arm"], str(act["seed"])) for act in sweeps.acts}
    assert len({one["config_hash"] for one in planned.values()}) == len(planned) == 4
    before = (sweeps.folder / "lock.json").read_bytes()
    run(sweeps, file=LOCKED)
    assert (sweeps.folder / "lock.json").read_bytes() == before
    assert len(sweeps.acts) == 4


@pytest.mark.slow
def test_each_run_has_the_settings_that_were_locked(sweeps: Sweeps) -> None:
    run(sweeps, file=LOCKED + "folds: 2\nbase: {data.test_fraction: 0}\n")
    content = unseal((sweeps.folder / "lock.json").read_bytes())
    planned = {(one["arm"], one["seed"], one["fold"]): one["config_hash"] for one in content["runs"]}
    made = {}
    for path in sweeps.outputs.glob("runs/*/config/config.yaml"):
        check(cfg := OmegaConf.load(path), several=True)  # as a training does
        made[cfg.arm, str(cfg.seed), str(cfg.data.fold)] = config_hash(cfg)
    assert len(made) == 8
    assert made == planned
    assert len({one["split_hash"] for one in content["runs"]}) == 4, "of two seeds and two folds"


@pytest.mark.slow
def test_it_does_not_go_on_with_other_code(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LOCKED.replace("seeds: [0, 3]", "seeds: [0]")
    run(sweeps, file=file)
    monkeypatch.setattr(lock, "common_tags", lambda: {"git_commit": "another", "code_hash": "changed"})
    said = run(sweeps, file=file, code=2)
    assert "git_commit: " in said
    assert "another is there now; code_hash: " in said
    assert "begin anew" in said
    (sweeps.folder / "lock.json").unlink()
    run(sweeps, file=file)
    content = unseal((sweeps.folder / "lock.json").read_bytes())
    assert params(sweeps)["lock"] != f"sha256:{digest(content)}", "its record keeps the first hash, which tells"


@pytest.mark.slow
def test_its_reading_of_the_test_part_is_noted_once(sweeps: Sweeps) -> None:
    for _ in range(2):
        run(sweeps)
    found = readings(sweeps.outputs, Asked.read(sweeps.folder).part)
    assert [(reading.kind, reading.name) for reading in found.known] == [("study", "two")]
    assert not (sweeps.folder / "lock.json").exists()
    assert "lock" not in params(sweeps)
    run(sweeps, "data.split_seed=1")
    assert len((sweeps.outputs / "readings.jsonl").read_text().splitlines()) == 2
    assert len(readings(sweeps.outputs, found.known[0].part).known) == 1, "another split is another part"
