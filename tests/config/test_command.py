"""How the verbs other than train read what a user types, and how they end."""

import errno
import importlib
import os
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
        (OSError(errno.EACCES, "Permission denied", "/a/b"), 2, "/a/b. Ask for access to it, or choose another"),
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
    assert "run: Environment variable 'SEG_NO_SUCH_VARIABLE'" in capsys.readouterr().err


def test_another_error_is_a_fault_of_ours_and_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exits():
        raise ZeroDivisionError


def test_a_verb_starts_without_hydra(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['x', 'paths.outputs={tmp_path}']\n"
        f"for name in {[verb for verb in VERBS if verb != 'plan']}:\n"  # which composes a study as seg.train does
        "    try: __import__(f'seg.{name}', fromlist=['x']).run()\n"
        "    except SystemExit as ended: pass\n"
        "print(sorted({'hydra', 'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


CLOSED = """
import os
for number in (0, 1, 2):
    os.close(number)
from seg.config.command import exits
with exits():
    import sys
    with open("kept.bin", "wb") as file:
        print("said")
        print("said", file=sys.stderr, flush=True)
        file.write(b"1" if file.fileno() > 2 else b"0")
"""


def test_with_closed_streams_nothing_that_is_printed_gets_into_a_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED], check=False, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "kept.bin").read_bytes()) == (0, b"1")


def test_a_working_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit), exits():
        Path.cwd()
    assert "working folder is no longer there" in capsys.readouterr().err


def test_a_file_in_place_of_a_folder_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(SystemExit) as caught, exits():
        (tmp_path / "a").mkdir(parents=True)
    assert (caught.value.code, str(tmp_path / "a") in capsys.readouterr().err) == (2, True)


def test_files_are_read_whatever_the_locale(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    given = [sys.executable, "-m", "seg.train", "--cfg", "job"]
    done = subprocess.run(given, env=os.environ | plain, capture_output=True, check=False, cwd=CONF.parent)
    other = [sys.executable, "-m", "seg.runs", f"paths.outputs={tmp_path}"]
    runs = subprocess.run(other, env=os.environ | plain, capture_output=True, check=False, cwd=CONF.parent)
    assert b"Traceback" not in done.stderr + runs.stderr


@pytest.mark.parametrize(
    ("name", "argument"), [("predict", "input=[a,b]"), ("score", "run=[a,b]"), ("clean", "run=[a]")]
)
def test_a_list_where_one_value_is_meant_is_refused(
    name: str, argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, argument])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"seg.{name}").run()
    assert ended.value.code == 2
    assert f"{argument.partition('=')[0]} is a list; it takes one value." in capsys.readouterr().err
