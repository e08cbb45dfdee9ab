"""How the verbs other than train read what a user types, and how they end."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from seg.config.command import exits, read, verb
from seg.config.options import CONF
from seg.errors import ConfigError, SegError

KEYS = """
run: null       # a comment
columns: null
folds: auto
top: 3
reverse: false
data: {root: null}
paths: {outputs: outputs, cache: "${paths.outputs}/cache"}
"""
VERBS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "train")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("run=12e45678", "12e45678"),
        ("run=00012345", "00012345"),
        ("run=1_000", "1_000"),
        ("run=true", "true"),
        ("run=my run (1), [last]", "my run (1), [last]"),
        ("run=[half", "[half"),
        ("run=a=b", "a=b"),
        ("run='a [quoted] text'", "a [quoted] text"),
        ("run='s", "'s"),
        ("run=", ""),
        ("run=null", None),
        ("run=${paths.cache}/x", "outputs/cache/x"),
        ("columns=[12e45678,00012345, params.lr]", ["12e45678", "00012345", "params.lr"]),
        ("columns=['a,b',\"c d\"]", ["a,b", "c d"]),
        ("columns=name", "name"),
        ("folds=5", "5"),
        ("top=10", 10),
        ("top=2.5", 2.5),
        ("reverse=true", True),
        ("reverse=False", False),
        ("data.root=/my scans/[1]", "/my scans/[1]"),
        ("paths.outputs=/a/b", "/a/b"),
    ],
)
def test_a_value_is_what_was_typed(argument: str, expected: Any) -> None:
    cfg = read(KEYS, [argument])
    assert OmegaConf.to_container(cfg, resolve=True) == changed(argument.partition("=")[0], expected)


def changed(key: str, value: Any) -> Any:
    """The defaults, but for one key."""
    cfg = OmegaConf.create(KEYS)
    OmegaConf.update(cfg, key, value)
    return OmegaConf.to_container(cfg, resolve=True)


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read(KEYS, ["topp=3", "top=many", "reverse=maybe", "--cfg", "data.rot=x", "paths.outputs=here"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 faults:"
    words = (
        "'topp'.*'top'",
        "top is many.*a number",
        "reverse is maybe.*true or false",
        "--cfg.*--help",
        "'data.root'",
    )
    for line, expected in zip(lines[1:], words, strict=True):
        assert all(word in line for word in expected.split(".*")), line


def test_a_key_that_does_not_exist_cannot_be_read() -> None:
    with pytest.raises(Exception, match="nothing"):
        _ = read(KEYS, []).nothing


@pytest.mark.parametrize("name", VERBS)
def test_help_prints_every_key_with_its_meaning(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    verb(name, lambda _: pytest.fail("it only prints"))()
    printed = capsys.readouterr().out
    assert printed.startswith((CONF / f"{name}.yaml").read_text())
    assert OmegaConf.create(printed) == given(name, monkeypatch)


def given(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> DictConfig:
    """What the verb's function is given."""
    got: list[DictConfig] = []
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    verb(name, got.append)()
    return got[0]


def test_a_verb_is_given_its_keys_and_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = given("clean", monkeypatch, "keep=3", "yes=true", "paths.outputs=/my outputs")
    assert (cfg.keep, cfg.yes, cfg.paths.cache) == ("3", True, "/my outputs/cache")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("key is wrong"), 2, "error: key is wrong"),
        (SegError("went wrong at http://me:secret@host"), 1, "http://me:***@host"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 2, "/a/b. Make room"),
        (KeyboardInterrupt(), 1, "stopped"),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, exits():
        raise error
    assert ended.value.code == code
    assert words in capsys.readouterr().err


def test_a_value_that_names_what_is_not_there_is_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exits():
        _ = read(KEYS, ["run=${oc.env:SEG_NO_SUCH_VARIABLE}"]).run
    assert ended.value.code == 2
    assert "SEG_NO_SUCH_VARIABLE" in capsys.readouterr().err


def test_another_error_is_a_fault_of_ours_and_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exits():
        raise ZeroDivisionError


def test_a_verb_starts_without_hydra(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['x', 'paths.outputs={tmp_path}']\n"
        f"for name in {VERBS}:\n"
        "    try: __import__(f'seg.{name}', fromlist=['x']).run()\n"
        "    except SystemExit as ended: pass\n"
        "print(sorted({'hydra', 'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
