import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from seg.errors import ConfigError
from seg.records.folder import Process
from seg.sweep import ledger as module
from seg.sweep.ledger import Job, Ledger, Settings, Trial
from seg.sweep.space import Space, read_space

SETTINGS = Settings(("val_dice",), ("maximize",))
LINES = ["lr=tag(log,interval(1e-5,1e-1))", "depth=range(2,6)", "model=choice(unet,unetpp,swin)"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal waits for the disk at every line; here no power fails."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def space(*lines: str, **when: Any) -> Space:
    return read_space(list(lines or LINES), {}, when, lambda group: [])


def search(path: Path, n_trials: int = 8, among: Space | None = None, **settings: Any) -> Ledger:
    chosen = replace(SETTINGS, n_trials=n_trials, **settings)
    return Ledger("tune", path / "journal.log", chosen, Process.this(), among or space())


def grid(path: Path, count: int = 6, **settings: Any) -> Ledger:
    ledger = Ledger("grid", path / "journal.log", replace(SETTINGS, **settings), Process.this())
    ledger.enqueue(jobs(count))
    return ledger


def jobs(count: int) -> list[Job]:
    return [Job({"seed": str(n)}, (f"seed={n}",)) for n in range(count)]


def takes(ledger: Ledger, count: int) -> list[Trial]:
    taken = [ledger.take() for _ in range(count)]
    assert None not in taken
    return [trial for trial in taken if trial]


def finish(ledger: Ledger, value: Callable[[Trial], float] = lambda trial: float(trial.number)) -> list[Trial]:
    """Runs the ledger to its end in this process."""
    done = []
    while trial := ledger.take():
        ledger.complete(trial.number, [value(trial)])
        done.append(trial)
    assert ledger.over()
    return done


def states(ledger: Ledger) -> dict[str, int]:
    return dict(Counter(ledger.frame()["state"]))


# ---- what is to run


def test_a_grid_runs_every_job_once_in_its_order(tmp_path: Path) -> None:
    ledger = grid(tmp_path)
    done = finish(ledger)
    assert [trial.overrides for trial in done] == [(f"seed={n}",) for n in range(6)]
    assert [trial.params for trial in done] == [{"seed": str(n)} for n in range(6)]
    assert ledger.take() is None


def test_a_grid_that_goes_on_skips_what_is_entered_and_enters_what_is_new(tmp_path: Path) -> None:
    ledger = grid(tmp_path)
    for trial in takes(ledger, 2):
        ledger.complete(trial.number, [1.0])
    again = grid(tmp_path, count=7)
    assert [trial.overrides for trial in finish(again)] == [(f"seed={n}",) for n in range(2, 7)]
    assert states(again) == {"finished": 7}


def test_a_job_that_a_grid_has_twice_runs_twice(tmp_path: Path) -> None:
    ledger = grid(tmp_path, count=0)
    for _ in range(2):  # the second time nothing is new
        ledger.enqueue([*jobs(1), *jobs(2)])
    assert sorted(trial.overrides for trial in finish(ledger)) == [("seed=0",), ("seed=0",), ("seed=1",)]


def test_an_empty_grid_is_over(tmp_path: Path) -> None:
    ledger = grid(tmp_path, count=0)
    assert ledger.take() is None
    assert ledger.over()
    assert ledger.frame().empty
    assert ledger.best().empty
    assert ledger.failures() == []


def test_a_search_starts_from_the_trials_it_is_given_and_draws_the_rest(tmp_path: Path) -> None:
    ledger = search(tmp_path)
    for _ in range(2):
        ledger.enqueue([Job({"model": "swin", "lr": 0.001}), Job({"depth": "5", "lr": "1e-2"})])
    first, second, third = takes(ledger, 3)
    assert first.params["model"] == "swin"
    assert first.params["lr"] == 0.001
    assert first.params["depth"] in range(2, 6)
    assert second.params["depth"] == 5
    assert second.params["lr"] == 0.01
    assert "depth=5" in second.overrides
    assert "again" not in str(third.params)
    assert len(ledger.frame()) == 3


def test_a_search_says_at_once_which_of_its_starts_it_cannot_reach(tmp_path: Path) -> None:
    among = space(*LINES, "max_lr=interval(0.1,0.2)", max_lr={"model": "unet"})
    ledger = search(tmp_path, among=among)
    starts = [{"modle": "unet"}, {"model": "vnet"}, {"depth": 7}, {"lr": "fast"}, {"model": "swin", "max_lr": 0.15}]
    with pytest.raises(ConfigError) as caught:
        ledger.enqueue([Job(start) for start in starts])
    for part in ("5 faults", "Did you mean 'model'", "model=vnet", "depth=7", "lr=fast", "max_lr is not asked for"):
        assert part in str(caught.value)
    assert ledger.frame().empty


def test_a_space_whose_choices_changed_is_refused(tmp_path: Path) -> None:
    finish(search(tmp_path, 2))
    search(tmp_path, 2, space("lr=tag(log,interval(1e-6,1e-3))", *LINES[1:]))  # bounds may change
    with pytest.raises(
        ConfigError,
        match="model was drawn from unet, unetpp, swin when the sweep began and would be from unet,unetpp now",
    ):
        search(tmp_path, 2, space(*LINES[:2], "model=choice(unet,unetpp)"))


def test_a_name_that_is_another_sweeps_is_refused(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(ConfigError, match=r"val_dice \(maximize\), not val_loss \(minimize\)"):
        search(tmp_path, objectives=("val_loss",), directions=("minimize",))
    with pytest.raises(ConfigError, match=r"val_dice \(maximize\), not val_dice \(minimize\)"):
        search(tmp_path, directions=("minimize",))


# ---- exactly n_trials


def test_a_search_ends_with_n_trials_that_finished_or_were_pruned(tmp_path: Path) -> None:
    ledger = search(tmp_path, 6, pruner="none")
    count = 0
    while trial := ledger.take():
        count += 1
        if count % 3 == 0:
            ledger.fail(trial.number, "broken", retry=False)
        elif count % 3 == 1:
            ledger.prune(trial.number)
        else:
            ledger.complete(trial.number, [0.5])
    assert states(ledger) == {"finished": 3, "pruned": 3, "failed": 2}
    assert ledger.over()


def test_a_search_can_be_prolonged(tmp_path: Path) -> None:
    finish(search(tmp_path, 3))
    assert len(finish(search(tmp_path, 5))) == 2
    assert finish(search(tmp_path, 4)) == []


def test_while_trials_run_there_is_nothing_to_take_but_it_is_not_over(tmp_path: Path) -> None:
    ledger, other = search(tmp_path, 2, retries=1), search(tmp_path, 2, retries=1)
    first, second = takes(ledger, 2)
    assert other.take() is None
    assert not other.over(), "one may fail and come back"
    ledger.complete(first.number, [1.0])
    ledger.fail(second.number, "broken", retry=True)
    again = other.take()
    assert again
    assert (again.params, again.attempt) == (second.params, 2)
    other.complete(again.number, [1.0])
    assert ledger.over()
    assert other.over()


def test_a_trial_that_is_one_too_many_is_given_up_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, late = search(tmp_path, 2), search(tmp_path, 2)
    answers = iter([True])  # it looked before the other took the last ones
    look = late._open
    monkeypatch.setattr(late, "_open", lambda trials: next(answers, None) or look(trials))
    takes(ledger, 2)
    assert late.take() is None
    assert len(late._all()) == 3
    assert states(late) == {"running": 2}
    assert late.failures() == []
    for number in (0, 1):
        ledger.complete(number, [1.0])
    assert late.over()


def test_a_grid_never_asks_for_a_trial_that_no_job_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, late = grid(tmp_path, 1), grid(tmp_path, 1)
    takes(ledger, 1)
    answers = iter([True])
    look = late._open
    monkeypatch.setattr(late, "_open", lambda trials: next(answers, None) or look(trials))
    assert late.take() is None
    assert states(late) == {"running": 1}


def test_jobs_that_two_processes_entered_at_once_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, other = grid(tmp_path, 0), grid(tmp_path, 0)
    monkeypatch.setattr(other, "_all", list)  # it looked before the other entered its jobs
    for hand in (ledger, other):
        hand.enqueue(jobs(3))
    monkeypatch.undo()
    assert len(ledger._all()) == 6
    assert states(ledger) == {"waiting": 3}
    assert [trial.overrides for trial in finish(ledger)] == [(f"seed={n}",) for n in range(3)]
    assert states(other) == {"finished": 3}


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    ledger = search(tmp_path, 20, retries=1, sampler="random")
    taken: list[Trial] = []

    def work() -> None:
        while not ledger.over():
            if trial := ledger.take():
                taken.append(trial)
                ledger.report(trial.number, 1, 0.5)
                if trial.number % 4 == 0 and trial.attempt == 1:
                    ledger.fail(trial.number, "broken", retry=True)
                else:
                    ledger.complete(trial.number, [0.5])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(ledger)["finished"] == 20
    assert len({trial.number for trial in taken}) == len(taken)


# ---- how a trial ends


@pytest.mark.parametrize("kind", [grid, search])
def test_a_failed_trial_is_tried_again_as_often_as_retries_say(kind: Callable[..., Ledger], tmp_path: Path) -> None:
    ledger = (
        kind(tmp_path, 1, retries=2) if kind is grid else kind(tmp_path, 1, space("x=interval(0.0,9.0)"), retries=2)
    )
    tried = []
    for _ in range(3):
        (trial,) = takes(ledger, 1)
        tried.append(trial)
        ledger.fail(trial.number, f"broken {trial.attempt}", retry=True)
    assert [trial.attempt for trial in tried] == [1, 2, 3]
    assert len({(str(trial.params), trial.overrides) for trial in tried}) == 1
    assert ledger.failures() == [(trial.number, f"broken {trial.attempt}") for trial in tried]
    frame = ledger.frame()
    assert list(frame["retried"]) == [True, True, False]
    assert list(frame["attempt"]) == [1, 2, 3]
    if kind is grid:
        assert ledger.take() is None
        assert ledger.over()
    else:
        assert takes(ledger, 1)[0].params != tried[0].params, "a search draws another"


def test_a_hopeless_trial_is_not_tried_again(tmp_path: Path) -> None:
    ledger = grid(tmp_path, 1, retries=5)
    (trial,) = takes(ledger, 1)
    ledger.fail(trial.number, "wrong at mlflow://me:secret@host", retry=False)
    assert ledger.over()
    assert ledger.failures() == [(0, "wrong at mlflow://me:***@host")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_a_failure(value: float, tmp_path: Path) -> None:
    ledger = grid(tmp_path, 1, retries=1)
    (trial,) = takes(ledger, 1)
    ledger.complete(trial.number, [value])
    assert ledger.failures() == [(0, f"val_dice is {value}; an objective must be a finite number")]
    assert ledger.over()


def test_what_has_ended_stays_as_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = grid(tmp_path, 1, retries=1)
    (trial,) = takes(ledger, 1)
    ledger.complete(trial.number, [0.5])
    ledger.fail(trial.number, "late", retry=True)
    ledger.prune(trial.number)
    ledger.complete(trial.number, [0.9])
    ledger.note(trial.number, run_id="late")
    assert [record.message for record in caplog.records] == [
        "Trial 0 had been given up before it was failed.",
        "Trial 0 had been given up before it was pruned.",
    ]
    assert ledger.report(trial.number, 3, 0.1), "whoever still runs it should stop"
    assert ledger.frame().to_dict("records")[0]["val_dice"] == 0.5
    assert ledger.over()


# ---- pruning

PRUNERS = {
    "median": {"n_startup_trials": 3, "n_warmup_steps": 1},
    "hyperband": {"min_resource": 1, "max_resource": 9, "reduction_factor": 3},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
    "wilcoxon": {"p_threshold": 0.2},
}


def curve(ledger: Ledger, trial: Trial, height: float, steps: int = 6) -> bool:
    """Reports a trial's epochs (or folds); whether it was pruned."""
    for step in range(1, steps + 1):
        if ledger.report(trial.number, step, height + 0.001 * step):
            ledger.prune(trial.number)
            return True
    ledger.complete(trial.number, [height])
    return False


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_pruner_stops_bad_trials_and_lets_good_ones_end(pruner: str, tmp_path: Path) -> None:
    ledger = search(tmp_path, 30, pruner=pruner, pruner_options=PRUNERS[pruner], sampler="random")
    for n, trial in enumerate(takes(ledger, 10)):
        curve(ledger, trial, 0.5 + 0.01 * n)
    bad = [curve(ledger, trial, 0.1) for trial in takes(ledger, 8)]
    good = [curve(ledger, trial, 0.7 + 0.01 * n) for n, trial in enumerate(takes(ledger, 4))]
    assert sum(bad) >= 6
    assert not any(good)
    rows = ledger.frame()
    pruned = rows[rows["state"] == "pruned"]
    assert len(pruned) >= sum(bad)
    assert pruned["val_dice"].between(0.1, 0.7).all(), "what it had reached"


def test_without_a_pruner_nothing_is_pruned(tmp_path: Path) -> None:
    ledger = search(tmp_path, 20, pruner="none")
    assert not any(
        curve(ledger, trial, height) for trial, height in zip(takes(ledger, 20), [0.9] * 19 + [0.0], strict=True)
    )


def test_a_pruner_prunes_what_another_process_runs_by_what_this_one_learned(tmp_path: Path) -> None:
    options = {"pruner": "median", "pruner_options": PRUNERS["median"]}
    ledger, other = search(tmp_path, 10, **options), search(tmp_path, 10, **options)
    for trial in takes(ledger, 4):
        curve(ledger, trial, 0.5)
    assert curve(other, takes(other, 1)[0], 0.1)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_report_that_is_no_number_says_nothing(pruner: str, tmp_path: Path) -> None:
    ledger = search(tmp_path, 20, pruner=pruner, pruner_options=PRUNERS[pruner])
    for trial in takes(ledger, 6):
        curve(ledger, trial, 0.5)
    (trial,) = takes(ledger, 1)
    assert not any(ledger.report(trial.number, step, float("nan")) for step in range(1, 5))
    ledger.prune(trial.number)
    assert ledger.frame()["val_dice"].isna().tolist()[-1]


def test_several_objectives_are_not_reported(tmp_path: Path) -> None:
    ledger = search(tmp_path, 2, objectives=("a", "b"), directions=("maximize", "minimize"))
    (trial,) = takes(ledger, 1)
    assert not ledger.report(trial.number, 1, 0.0)
    ledger.complete(trial.number, [1.0, 2.0])
    assert ledger.frame()[["a", "b"]].values.tolist() == [[1.0, 2.0]]


def test_wilcoxon_takes_folds_that_the_best_trial_lacks(tmp_path: Path) -> None:
    ledger = search(tmp_path, 9, pruner="wilcoxon")
    for trial, folds in zip(takes(ledger, 2), (3, 6), strict=True):
        assert not curve(ledger, trial, 0.5, folds)


# ---- processes that die

HAND = """
import os, signal, sys
os.fsync = lambda file: None
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger import *

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, settings = Path({path!r}), {settings!r}
{code}
"""


def hand(path: Path, code: str, **settings: Any) -> int:
    """Runs ``code`` in a process of its own; its exit status."""
    script = HAND.format(tests=str(Path(__file__).parent), path=str(path), settings=settings, code=code)
    return subprocess.run([sys.executable, "-c", script], timeout=300, check=False).returncode


KILLED = -signal.SIGKILL


def test_what_a_killed_process_ran_is_an_orphan_that_another_takes_over(tmp_path: Path) -> None:
    code = "ledger = search(path, **settings); a, b, c = takes(ledger, 3); ledger.complete(b.number, [1.0]); die()"
    assert hand(tmp_path, code, n_trials=4, retries=1) == KILLED
    ledger = search(tmp_path, 4, retries=1)
    assert states(ledger) == {"running": 2, "finished": 1}
    first, third = ledger.orphans()
    assert (first.number, third.number) == (0, 2)
    assert first.overrides
    assert first.params["model"] in str(first.overrides)
    assert [trial.number for trial in ledger.orphans()] == [0, 2], "until somebody acts"
    ledger.adopt(first.number)
    assert [trial.number for trial in ledger.orphans()] == [2]
    assert not ledger.report(first.number, 1, 0.5)
    ledger.complete(first.number, [0.5])
    ledger.fail(third.number, "killed", retry=True)
    assert ledger.orphans() == []
    done = finish(ledger)
    assert [(trial.params, trial.attempt) for trial in done if trial.attempt > 1] == [(third.params, 2)]
    assert states(ledger) == {"finished": 4, "failed": 1}


def test_what_a_living_process_runs_is_no_orphan(tmp_path: Path) -> None:
    parent = psutil.Process(os.getppid())
    living = Process(Process.this().host, parent.pid, parent.create_time())
    takes(Ledger("tune", tmp_path / "journal.log", replace(SETTINGS, n_trials=3), living, space()), 2)
    ledger = search(tmp_path, 3)
    takes(ledger, 1)
    assert ledger.orphans() == []


def test_what_an_earlier_ledger_of_the_same_process_left_is_an_orphan(tmp_path: Path) -> None:
    takes(search(tmp_path), 2)
    assert [trial.number for trial in search(tmp_path).orphans()] == [0, 1]


@pytest.mark.parametrize("entered", [0, 2])
def test_a_process_killed_while_it_enters_jobs_leaves_the_rest_to_the_next(entered: int, tmp_path: Path) -> None:
    code = f"""
ledger = grid(path, 0)
enter, left = ledger._study.enqueue_trial, {entered}
def counted(*arguments):
    global left
    left = left - 1 if left else die()
    enter(*arguments)
ledger._study.enqueue_trial = counted
ledger.enqueue(jobs(4))
"""
    assert hand(tmp_path, code) == KILLED
    ledger = grid(tmp_path, 4)
    assert [trial.overrides for trial in finish(ledger)] == [(f"seed={n}",) for n in range(4)]


@pytest.mark.parametrize("moment", ["make_sampler", "choose", "sign"])
def test_a_trial_that_a_killed_process_had_not_yet_got_is_settled(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drew its values, or was about to sign that it did; a start that was entered beforehand is not lost."""
    code = f"""
import seg.sweep.ledger as module
ledger = search(path, **settings)
ledger.enqueue([Job({{"model": "swin", "lr": 0.001}})])
if "{moment}" == "sign":
    Ledger._sign = die
elif "{moment}" == "choose":
    real, count = module.choose, 0
    def choose(trial, parameter):
        global count
        count += 1
        return real(trial, parameter) if count < 3 else die()
    module.choose = choose
else:
    ledger._study.sampler._make = die
ledger.take()
"""
    assert hand(tmp_path, code, n_trials=3) == KILLED
    ledger = search(tmp_path, 3)
    if moment == "sign":  # nobody knows whose it was
        assert ledger.orphans() == []
        monkeypatch.setattr(module, "SILENT", -10.0)
    assert ledger.orphans() == []
    assert states(ledger) == {"waiting": 1}
    first, *_ = done = finish(ledger)
    assert (first.params["model"], first.params["lr"], first.attempt) == ("swin", 0.001, 1)
    assert len(done) == 3
    assert states(ledger) == {"finished": 3}


def test_a_trial_that_was_about_to_be_called_failed_fails_and_comes_back_once(tmp_path: Path) -> None:
    code = """
ledger = search(path, **settings)
(trial,) = takes(ledger, 1)
ledger._tell = die
ledger.fail(trial.number, "broken", retry=True)
"""
    assert hand(tmp_path, code, n_trials=1, retries=1) == KILLED
    ledger = search(tmp_path, 1, retries=1)
    assert ledger.orphans() == []
    assert states(ledger) == {"failed": 1, "waiting": 1}
    assert ledger.failures() == [(0, "broken")]
    assert [trial.attempt for trial in finish(ledger)] == [2]


def test_a_trial_that_its_own_process_could_not_finish_taking_is_settled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = search(tmp_path, 2)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.take()
    monkeypatch.undo()
    assert not ledger.over()
    assert ledger.orphans() == []
    assert len(finish(ledger)) == 2


def test_a_process_of_another_machine_is_gone_when_it_gives_no_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, address = replace(SETTINGS, n_trials=3), tmp_path / "journal.log"
    there = Ledger("tune", address, settings, Process("elsewhere/1", 1, 0.0), space())
    here = search(tmp_path, 3)
    takes(there, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    there.beat()
    monkeypatch.setattr(time, "time", lambda: now + 450)
    assert here.orphans() == []
    monkeypatch.setattr(time, "time", lambda: now + 550)
    assert [trial.number for trial in here.orphans()] == [0, 1]
    here.adopt(0)
    here.fail(1, "its machine is gone", retry=False)
    there.complete(1, [9.0])
    here.complete(0, [1.0])
    assert here.frame().query("state == 'finished'")["number"].tolist() == [0], "too late"


WORK = """
ledger = search(path, **settings)
while not ledger.over():
    if trial := ledger.take():
        for step in range(3):
            ledger.report(trial.number, step, 0.5)
        if trial.number % 5 == 4 and trial.attempt == 1:
            ledger.fail(trial.number, "broken", retry=True)
        else:
            ledger.complete(trial.number, [trial.params["lr"]])
ledger.close()
"""


def side_by_side(path: Path, hands: int, code: str = WORK, **settings: Any) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(hand(path, code, **settings))) for _ in range(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * hands


def test_processes_at_once_on_one_journal_end_with_n_trials(tmp_path: Path) -> None:
    settings = {"n_trials": 15, "retries": 1, "sampler": "random"}
    side_by_side(tmp_path, 3, **settings)
    frame = search(tmp_path, **settings).frame()
    assert Counter(frame["state"])["finished"] == 15
    assert frame["lr"].nunique() == 15, "each its own point"
    failed, again = frame[frame["state"] == "failed"], frame[frame["attempt"] == 2]
    assert sorted(failed["lr"]) == sorted(again["lr"])


def test_a_journal_is_read_on_where_a_full_disk_cut_a_line(tmp_path: Path) -> None:
    ledger = grid(tmp_path, 2)
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "wor')
    assert len(finish(grid(tmp_path, 2))) == 2
    assert states(ledger) == {"finished": 2}


# ---- what it shows


def test_the_frame_tells_all_of_every_trial(tmp_path: Path) -> None:
    among = space("lr=interval(0.5,1.0)", "model=choice(a,b)", "x=interval(0.5,1.0)", x={"model": "b"})
    ledger = search(tmp_path, 4, among, retries=1)
    ledger.enqueue([Job({"model": "a", "lr": 0.75}), Job({"model": "b"}), Job({"model": "b"})])
    first, second, third = takes(ledger, 3)
    ledger.note(first.number, run_id="abc", predictions="/out/predictions/run_abc")
    ledger.complete(first.number, [0.5])
    ledger.fail(second.number, "out of memory", retry=True)
    ledger.report(third.number, 4, 0.25)
    ledger.prune(third.number)
    frame = ledger.frame()
    assert list(frame) == [
        *("number", "state", "val_dice", "lr", "model", "x"),
        *("run_id", "predictions", "attempt", "retried", "started", "seconds", "error"),
    ]
    assert frame.attrs["parameters"] == ["lr", "model", "x"]
    rows = frame.to_dict("records")
    assert [row["state"] for row in rows] == ["finished", "failed", "pruned", "waiting"]
    assert rows[0] | {"started": 0, "seconds": 0, "x": 0} == {
        "number": 0,
        "state": "finished",
        "val_dice": 0.5,
        "lr": 0.75,
        "model": "a",
        "x": 0,
        "run_id": "abc",
        "predictions": "/out/predictions/run_abc",
        "attempt": 1,
        "retried": False,
        "started": 0,
        "seconds": 0,
        "error": None,
    }
    assert rows[0]["seconds"] >= 0
    assert (rows[1]["error"], rows[1]["retried"]) == ("out of memory", True)
    assert rows[2]["val_dice"] == 0.25
    assert (rows[3]["attempt"], rows[3]["x"]) == (2, rows[1]["x"])
    assert (frame["retried"] | ~frame["retried"]).all(), "truth values"


@pytest.mark.parametrize(("direction", "winner"), [("maximize", 1), ("minimize", 3)])
def test_the_best_trial_is_the_first_of_the_best(direction: str, winner: int, tmp_path: Path) -> None:
    ledger = grid(tmp_path, 6, directions=(direction,))
    assert ledger.best().empty
    for trial, value in zip(takes(ledger, 5), (0.5, 0.9, 0.9, 0.1, 0.1), strict=True):
        ledger.complete(trial.number, [value])
    (last,) = takes(ledger, 1)
    ledger.report(last.number, 1, 99.0 if direction == "maximize" else -99.0)
    ledger.prune(last.number)
    (best,) = ledger.best().to_dict("records")
    assert best["number"] == winner
    assert best["overrides"] == (f"seed={winner}",)


def test_of_several_objectives_the_pareto_front_is_best(tmp_path: Path) -> None:
    ledger = grid(tmp_path, 5, objectives=("dice", "params"), directions=("maximize", "minimize"))
    for trial, values in zip(takes(ledger, 5), [(0.5, 5), (0.9, 9), (0.4, 6), (0.6, 2), (0.9, 10)], strict=True):
        ledger.complete(trial.number, values)
    assert ledger.best()["number"].tolist() == [1, 3]
    assert ledger.best()["params"].tolist() == [9.0, 2.0]


def test_the_parent_is_whoever_said_so_first(tmp_path: Path) -> None:
    ledger, other = search(tmp_path), search(tmp_path)
    assert ledger.parent is None
    assert ledger.set_parent_once("aaa") == "aaa"
    assert other.set_parent_once("bbb") == "aaa"
    assert (ledger.parent, other.parent) == ("aaa", "aaa")
    assert ledger.frame().empty, "it is no trial"


def test_of_two_that_say_at_once_which_run_is_the_parent_both_hear_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other = search(tmp_path), search(tmp_path)
    asked = iter([None])  # the other looked before the first had said so
    known = type(other).parent
    monkeypatch.setattr(
        Ledger, "parent", property(lambda self: next(asked, None) if self is other else known.fget(self))
    )
    assert ledger.set_parent_once("aaa") == "aaa"
    other.set_parent_once("bbb")
    monkeypatch.undo()
    assert other.parent == "aaa"
