import subprocess
from pathlib import Path

import pytest

from seg.records import provenance
from seg.records.provenance import common_tags, git


def repository(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_bytes(b"caf\xc3\xa9\n")
    for command in (
        ["init", "-q"],
        ["config", "user.name", "Ada Lovelace"],
        ["config", "user.email", "ada@example.org"],
        ["add", "notes.txt"],
        ["commit", "-q", "-m", folder.name],
    ):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return folder


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code lies in a folder without repository."""
    (tmp_path / "installed").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(provenance, "_CODE", tmp_path / "installed")
    return tmp_path / "installed"


def test_the_commit_is_that_of_the_code_wherever_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_CODE", repository(tmp_path / "code"))
    expected = git("rev-parse", "HEAD")
    monkeypatch.chdir(repository(tmp_path / "work"))
    assert git("rev-parse", "HEAD") == expected
    assert git("log", "-1", "--format=%s") == "code\n"


def test_a_difference_that_is_not_utf8_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = repository(tmp_path / "code")
    monkeypatch.setattr(provenance, "_CODE", code)
    (code / "notes.txt").write_bytes("café\n".encode("latin-1"))
    assert "+caf\ufffd" in git("diff", "HEAD")


@pytest.mark.usefixtures("outside")
def test_commit_developer_and_dirt_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository(tmp_path / "work"))
    tags = common_tags()
    assert (tags["git_commit"], tags["git_dirty"]) == (git("rev-parse", "HEAD").strip(), "false")
    assert len(tags["git_commit"]) == 40
    assert tags["developer"] == "Ada Lovelace"
    (tmp_path / "work/log.txt").write_text("")
    assert common_tags()["git_dirty"] == "false", "nor does a log"
    (tmp_path / "work/new.py").write_text("")
    assert common_tags()["git_dirty"] == "true"
    (tmp_path / "work/seg").mkdir()
    monkeypatch.chdir(tmp_path / "work/seg")
    assert common_tags()["git_dirty"] == "true", "wherever in the repository it is asked"


def test_a_folder_without_repository_and_a_machine_without_git(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outside)
    assert common_tags()["git_commit"] == "none"
    monkeypatch.setenv("PATH", str(tmp_path))
    tags = common_tags()
    assert (tags["git_commit"], tags["git_dirty"]) == ("none", "none")
    assert tags["developer"]
    assert "Python 3." in tags["environment"]
    assert "torch 2." in tags["environment"]
