"""A configuration from elsewhere runs no code that its user did not name: at every depth, by every way in."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from seg import train as verb
from seg.config.build import allowing, build, named
from seg.config.command import read
from seg.config.options import CONF
from seg.errors import ConfigError
from seg.records.folder import RunFolder
from seg.records.sink import sink_class
from seg.train import as_begun

DANGEROUS = (
    *("pandas.read_pickle", "torch.load", "numpy.load", "urllib.request.urlopen", "os.system", "subprocess.Popen"),
    *("builtins.eval", "builtins.exec", "pickle.loads", "runpy.run_path", "importlib.import_module", "shutil.rmtree"),
    *("hydra.utils.call", "torch.hub.load", "torch.jit.load", "monai.bundle.run", "monai.data.NumpyReader"),
    # what only looks like one of ours
    *("seg.losses.torch.load", "seg.models.contract.torch.hub.load", "seg.schedulers.math.sqrt"),
    *("torch.nn.modules.module.torch.load", "torch.optim.optimizer.functools.partial", "seg.data.phantom.json.load"),
    *("segx.models.unet", "torchx.nn.Conv3d", "monai.transformsx.Flip", "seg.models", "seg", ""),
    # ours and theirs, yet no parts of a network or a training
    *("seg.files.atomic_write", "seg.config.build.build", "seg.data.volumes.write_label", "seg.records.record.Record"),
    *("monai.transforms.LoadImage", "monai.transforms.LoadImaged", "monai.transforms.io.array.SaveImage"),
    *("monai.losses.PerceptualLoss", "monai.networks.utils.convert_to_onnx", "monai.transforms.utils.optional_import"),
    *("torch.nn.functional.relu", "torch.nn.Module.load_state_dict", "torch.nn.init.ones_"),
)  # fmt: skip
DEPTHS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda node: node,
    "partial": lambda node: node | {"_partial_": True},
    "value": lambda node: {"a": node},
    "item": lambda node: [node],
    "list in list": lambda node: [[1, [node]]],
    "deep": lambda node: {"a": [{"b": {"c": [0, node]}}]},
    "argument": lambda node: {"_target_": "torch.nn.Identity", "x": node},
    "argument's list": lambda node: {"_target_": "torch.nn.Identity", "x": [{"y": node}]},
    "configuration": lambda node: OmegaConf.create({"a": [{"b": node}]}),
    "interpolation": lambda node: OmegaConf.create({"a": "${b.c}", "b": {"c": [node]}}).a,
    "made by a resolver": lambda node: OmegaConf.create({"a": f"${{oc.create:{{_target_: '{node['_target_']}'}}}}"}),
}


@pytest.mark.parametrize("target", DANGEROUS)
def test_what_could_run_any_code_is_no_target(target: str) -> None:
    with pytest.raises(ConfigError, match="allow_targets"):
        build({"_target_": target})
    with pytest.raises(ConfigError, match="allow_targets"):
        named(target)


@pytest.mark.parametrize("depth", DEPTHS)
def test_at_every_depth_and_before_anything_is_imported(
    depth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"_target_ is foreign_code\.run.*allow_targets=\[foreign_code\]"):
        build(DEPTHS[depth]({"_target_": "foreign_code.run"}))
    assert not (tmp_path / "imported").exists()


def foreign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``foreign_code`` in the working folder, whose import leaves a file."""
    code = f"import os\nfrom subprocess import Popen\nopen({str(folder / 'imported')!r}, 'w').close()\n"
    (folder / "foreign_code.py").write_text(f"{code}def run(**_):\n    return 'ran'\nclass Own: pass\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "foreign_code", raising=False)


def test_what_its_user_allows_is_built_and_nothing_beyond_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, monkeypatch)
    with allowing(["foreign_code"]):
        assert build({"a": [{"_target_": "foreign_code.run", "x": 1}]}) == {"a": ["ran"]}
        assert type(build({"_target_": "foreign_code.Own"})).__name__ == "Own"
        for beyond in ("foreign_code.os.system", "foreign_code.Popen", "foreign_codex.run", "os.system"):
            with pytest.raises(ConfigError, match="allow_targets"):
                build({"_target_": beyond})
    with allowing(["os.getcwd"]):  # a whole target
        assert build({"_target_": "os.getcwd"}) == str(tmp_path)
    with pytest.raises(ConfigError, match="allow_targets"):
        build({"_target_": "foreign_code.run"})


def test_an_option_of_conf_needs_no_permission() -> None:
    for file in sorted(CONF.glob("*/*.yaml")):
        content = OmegaConf.load(file)
        if target := content.get("_target_"):
            assert callable(named(target)), file


WAYS_IN = {
    "a section": "model: {_target_: foreign_code.run}",
    "a list in a list": "model: {norm: [group, [{_target_: foreign_code.run}]]}",
    "a key of its own": "theirs: [{_target_: foreign_code.run}]",
    "a sink": "tracking: {kind: foreign_code.run}",
    "its own permission": "allow_targets: [foreign_code]\nmodel: {_target_: foreign_code.run}",
    "a resolver": "loss: {weight: '${oc.create:{_target_: foreign_code.run}}'}",
    "a callback": "hydra: {callbacks: {theirs: {_target_: foreign_code.run}}}",
    "a launcher": "hydra: {launcher: {_target_: foreign_code.run}}",
    "a sweeper's option": "hydra: {sweeper: {sampler_options: {a: [{_target_: foreign_code.run}]}}}",
    "a logger": "hydra: {job_logging: {handlers: {theirs: {class: foreign_code.run}}}}",
    "a logger's factory": "hydra: {hydra_logging: {formatters: {theirs: {(): foreign_code.run}}}}",
    "a variable": "hydra: {job: {env_set: {LD_PRELOAD: foreign_code.run}}}",
    "a shell": "defaults: [{override /hydra/launcher: submitit_slurm}]\nhydra: {launcher: {setup: [foreign_code.run]}}",
    "a line for a cluster": (
        'defaults: [{override /hydra/launcher: submitit_slurm}]\nhydra: {launcher: {comment: "x\\nforeign_code.run"}}'
    ),
}
SWEPT = {
    "a parameter": "hydra: {sweeper: {params: {model._target_: choice(foreign_code.run)}}}",
    "parameters": "hydra: {sweeper: {params: {model._target_: 'foreign_code.run,seg.models.unet'}}}",
    "a parameter's own permission": (
        "hydra: {sweeper: {params: {allow_targets: '[foreign_code],[]', model._target_: choice(foreign_code.run)}}}"
    ),
    "a variable of each job": "hydra: {sweeper: {params: {+hydra.job.env_set.X: choice(foreign_code.run)}}}",
    "an arm": "hydra: {sweeper: {study: {question: q, arms: {a: {}, b: {model._target_: foreign_code.run}}}}}",
    "a study's base": (
        "hydra: {sweeper: {study: {question: q, base: {model._target_: foreign_code.run}, "
        "arms: {a: {}, b: {attention: se}}}}}"
    ),
}


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What ``seg.train`` says of a study's file, given its text: one error, exit code 2, nothing run."""

    def run(text: str, *arguments: str) -> str:
        foreign(tmp_path, monkeypatch)
        (tmp_path / "experiments").mkdir()
        (tmp_path / "experiments/theirs.yaml").write_text(f"# @package _global_\n{text}\n")
        monkeypatch.setattr(sys, "argv", ["seg.train", *arguments, "check=true"])
        with pytest.raises(SystemExit) as ended:
            verb.run()
        printed = capfd.readouterr().err
        assert (ended.value.code, printed.count("error:"), "Traceback" in printed) == (2, 1, False), printed
        assert not (tmp_path / "imported").exists()
        assert not (tmp_path / "outputs").exists()
        return printed

    return run


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize("flag", [[], ["-m"]], ids=["run", "sweep"])
def test_a_studys_file_runs_no_code(way: str, flag: list[str], refusal: Callable[..., str]) -> None:
    said = refusal(WAYS_IN[way], *flag, "experiments=theirs")
    assert "foreign_code" in said
    assert "If you trust it" in said


@pytest.mark.parametrize("way", SWEPT)
def test_a_sweeps_file_runs_no_code(way: str, refusal: Callable[..., str]) -> None:
    assert "foreign_code" in refusal(SWEPT[way], "-m", "experiments=theirs")


def test_a_swept_file_runs_no_code(refusal: Callable[..., str]) -> None:
    assert "foreign_code" in refusal(WAYS_IN["a section"], "-m", "experiments=theirs,null")


def seen(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model that the command builds from the composed configuration."""
    from seg.config.compose import entry

    built: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["seg.train", *arguments])
    entry("train", lambda cfg: built.append(build(cfg.model)))()
    return built


@pytest.mark.parametrize(
    "arguments", [["model=own", "allow_targets=[foreign_code]"], ["model._target_=foreign_code.run"]]
)
def test_the_command_line_allows(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, monkeypatch)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/own.yaml").write_text("_target_: foreign_code.run\nwidth: 8\n")
    assert seen(arguments, monkeypatch) == ["ran"]


@pytest.mark.parametrize("text", ["allow_targets: [foreign_code]", "model: {_target_: foreign_code.run}"])
def test_the_machines_own_settings_allow(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, monkeypatch)
    for path, content in {
        "model/own": "_target_: foreign_code.run",
        "local/default": f"# @package _global_\n{text}",
    }.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / f"{path}.yaml").write_text(content)
    assert seen(["model=own"] if "allow" in text else [], monkeypatch) == ["ran"]


def test_a_file_may_ask_for_less_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, monkeypatch)
    settings = {"local/default": "allow_targets: [foreign_code]", "experiments/theirs": "allow_targets: []"}
    for path, text in settings.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / f"{path}.yaml").write_text(f"# @package _global_\n{text}\nmodel: {{_target_: foreign_code.run}}\n")
    assert seen(["experiments=theirs"], monkeypatch) == ["ran"]


def test_a_runs_folder_runs_no_code(tmp_path: Path) -> None:
    run = tmp_path / "runs/run_a1b2c3d4"
    (run / "config").mkdir(parents=True)
    (run / "run_id").write_text("a1b2c3d4" * 4)
    folders = RunFolder.at(run)
    content = {
        "trainer": {"layout": "auto"},
        "allow_targets": ["os"],
        "loss": {"a": [{"_target_": "os.system"}]},
        "resume": None,
    }
    OmegaConf.save(OmegaConf.create(content), folders.config)
    with pytest.raises(ConfigError, match=r"loss\.a\[0\]\._target_ is os\.system"):
        as_begun(OmegaConf.create(), folders, [])


@pytest.mark.parametrize("kind", ["os.system", "seg.records.sink.os.system", "seg.records.record.Record"])
def test_a_foreign_record_names_no_code_as_its_sink(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.kind.*allow_targets"):
        sink_class(kind)


def test_other_commands_are_allowed_by_the_same_key() -> None:
    text = (CONF / "compare.yaml").read_text()
    assert list(read(text, ["allow_targets=[mine]"]).allow_targets) == ["mine"]
    assert list(read(text, [], {"allow_targets": ["mine"], "study": "x"}).allow_targets) == ["mine"]
