"""``--why key``: what set a value, what that overrode, and what other choices would set."""

import sys
from pathlib import Path

import pytest

from seg import train as verb
from seg.config.options import CONF
from seg.config.schema import KEYS


@pytest.fixture
def asked(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Asked":
    return Asked(capfd, monkeypatch)


class Asked:
    """The command, run in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capfd, self.patch = capfd, patch

    def __call__(self, key: str, *overrides: str, code: int = 0) -> list[str]:
        """What it prints, by line, blanks as one."""
        self.patch.setattr(sys, "argv", ["seg.train", *overrides, "--why", *([key] if key else [])])
        ended: object = 0
        try:
            verb.run()
        except SystemExit as end:
            ended = end.code
        out, err = self.capfd.readouterr()
        assert ended == code, out + err
        return [" ".join(line.split()) for line in (err if code else out).strip().splitlines()]


def at(file: str, words: str) -> str:
    """``file:line`` of the first line that begins with ``words``."""
    lines = Path(file).read_text().splitlines()
    return f"{file}:{next(n for n, line in enumerate(lines, 1) if line.strip().startswith(words))}"


def test_a_default_names_its_file_its_meaning_and_what_others_would_set(asked: Asked) -> None:
    said = asked("optimizer.lr")
    assert said[0] == "optimizer.lr = 0.02"
    assert said[1].startswith(f"set by {at('conf/optimizer/muon.yaml', 'lr:')} 0.02 steps are scaled")
    assert said[2:] == [
        f"optimizer={name} would set {value}" for name, value in (("adam", 0.001), ("adamw", 0.003), ("sgd", 0.01))
    ]


def test_the_command_line_overrides_a_recipe_which_overrides_an_option(asked: Asked) -> None:
    said = asked("trainer.max_minutes", "experiments=hippocampus", "trainer.max_minutes=25")
    assert said[0] == "trainer.max_minutes = 25"
    assert said[1] == "set by the command line 25"
    assert said[2] == f"it overrode {at('experiments/hippocampus.yaml', 'max_minutes:')} 10"
    assert said[3].startswith(f"it overrode {at('conf/trainer/default.yaml', 'max_minutes:')} null wall-clock minutes")
    assert said[-1] == f"It takes {KEYS['trainer.max_minutes']}."


def test_a_study_sets_by_its_base_and_varies_by_its_arms(asked: Asked) -> None:
    said = asked("data.patch", "experiments=attention", "-m")
    assert said[0] == "data.patch = [32, 32, 32]"
    assert said[1] == f"set by {at('experiments/attention.yaml', 'data.patch:')} (base) [32, 32, 32]"
    assert "varied by the arm se: attention=se" in asked("attention", "experiments=attention")
    said = asked("optimizer.lr", "experiments=tune_unetpp")
    assert "varied by hydra.sweeper.params: optimizer.lr=tag(log, interval(3e-3, 1e-1))" in said


def test_an_option_names_who_chose_it(asked: Asked) -> None:
    said = asked("model", "experiments=hippocampus", "model=unetpp")
    assert said[:4] == [
        "model = unetpp",
        "set by the command line unetpp",
        f"it overrode {at('experiments/hippocampus.yaml', '- override /model')} unet",
        f"it overrode {at('conf/train.yaml', '- model:')} unet the network",
    ]
    assert said[4].startswith("options attention_unet, dynunet")


def test_the_settings_of_this_machine_are_named(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text("# @package _global_\npaths:\n  outputs: here\n")
    monkeypatch.chdir(tmp_path)
    said = asked("paths.outputs")
    assert said[:2] == ["paths.outputs = here", "set by local/default.yaml:3 here"]
    assert said[2].startswith(f"it overrode {CONF / 'paths/default.yaml'}:")
    assert asked("paths.cache")[0] == "paths.cache = here/cache"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("optimizer.lrr", "There is no key 'optimizer.lrr'. Did you mean 'optimizer.lr'?"),
        ("lr", "Did you mean 'optimizer.lr'?"),
        ("scheduler.rise_fraction", "warmup_cosine has no rise_fraction. These have: scheduler=onecycle."),
        ("data.cases", "data.cases is a section. Ask for one of its keys: data.cases._target_"),
        ("", "--why names no key"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_one(asked: Asked, key: str, words: str) -> None:
    assert words in " ".join(asked(key, code=2))


def test_a_password_is_not_shown(asked: Asked) -> None:
    said = " ".join(asked("tracking.uri", "tracking.uri=http://me:secret@host"))
    assert "http://me:***@host" in said
    assert "secret" not in said


def test_a_key_that_must_be_given_and_ones_own_tag(asked: Asked) -> None:
    assert asked("data.root", "data=folder")[0] == "data.root = no value: it must be given"
    assert asked("tracking.tags.scanner", "tracking.tags.scanner=3T")[:2] == [
        "tracking.tags.scanner = 3T",
        "set by the command line 3T",
    ]
