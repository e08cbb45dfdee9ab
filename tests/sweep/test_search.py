import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from seg.errors import ConfigError
from seg.records.state import Process
from seg.sweep.goal import Goal, Judge
from seg.sweep.jobs import Space, choice, read_space
from seg.sweep.search import Search, Trial

GOAL = Goal(("val_dice",), ("maximize",))
LINES = ["lr=tag(log,interval(1e-5,1e-1))", "depth=range(2,6)", "model=choice(unet,unetpp,swin)"]


def space(*lines: str, **when: Any) -> Space:
    return read_space(list(lines or LINES), {}, when, None)


def search(
    path: Path,
    n_trials: int = 8,
    among: Space | None = None,
    starts: Sequence[dict[str, Any]] = (),
    process: Process | None = None,
    **goal: Any,
) -> Search:
    among = among or space()
    chosen, me = replace(GOAL, n_trials=n_trials, **goal), process or Process.this()
    hand = Search("tune", path / "journal.log", chosen, me, among, among.starts(starts), shared=True)
    hand.enter()
    return hand


def grid(path: Path, count: int = 6, **goal: Any) -> Search:
    among = Space((choice("seed", map(str, range(count))),))
    hand = Search(
        "grid", path / "journal.log", replace(GOAL, **goal), Process.this(), among, among.points(), shared=True
    )
    hand.enter()
    return hand


def living() -> Process:
    """Another process of this machine that is alive."""
    parent = psutil.Process(os.getppid())
    return Process(Process.this().host, parent.pid, parent.create_time())


def attempt(hand: Search, trial: Trial) -> int:
    return int(hand.frame().at[trial.number, "attempt"])


def takes(hand: Search, count: int) -> list[Trial]:
    taken = [hand.take() for _ in range(count)]
    assert None not in taken
    return [trial for trial in taken if trial]


def finish(hand: Search, value: Callable[[Trial], float] = lambda trial: float(trial.number)) -> list[Trial]:
    """Runs the hand to its end in this process."""
    done = []
    while trial := hand.take():
        hand.complete(trial.number, [value(trial)])
        done.append(trial)
    assert hand.over()
    return done


def states(hand: Search) -> dict[str, int]:
    return dict(Counter(hand.frame()["state"]))


# ---- what is to run


def test_a_grid_runs_every_job_once_in_its_order(tmp_path: Path) -> None:
    hand = grid(tmp_path)
    done = finish(hand)
    assert [trial.overrides for trial in done] == [(f"seed={n}",) for n in range(6)]
    assert [trial.params for trial in done] == [{"seed": str(n)} for n in range(6)]
    assert hand.take() is None


def test_a_grid_that_goes_on_skips_what_is_entered(tmp_path: Path) -> None:
    hand = grid(tmp_path)
    for trial in takes(hand, 2):
        hand.complete(trial.number, [1.0])
    again = grid(tmp_path)
    assert [trial.overrides for trial in finish(again)] == [(f"seed={n}",) for n in range(2, 6)]
    assert states(again) == {"finished": 6}


def test_a_search_starts_from_the_trials_it_is_given_and_draws_the_rest(tmp_path: Path) -> None:
    starts = [{"model": "swin", "lr": 0.001}, {"depth": "5", "lr": "1e-2"}]
    for _ in range(2):
        hand = search(tmp_path, starts=starts)
    first, second, _ = takes(hand, 3)
    assert first.params["model"] == "swin"
    assert first.params["lr"] == 0.001
    assert first.params["depth"] in range(2, 6)
    assert second.params["depth"] == 5
    assert second.params["lr"] == 0.01
    assert "depth=5" in second.overrides
    assert len(hand.frame()) == 3


def test_a_value_of_a_start_that_was_not_asked_for_is_none_of_its_trial(tmp_path: Path) -> None:
    among = space("model=choice(a,b)", "x=interval(0.5,1.0)", x={"model": "b"})
    hand = search(tmp_path, 8, among, [{"x": 0.5 + n / 16} for n in range(8)])
    finish(hand)
    frame = hand.frame()
    assert set(frame["model"]) == {"a", "b"}
    assert frame["x"].isna().tolist() == (frame["model"] == "a").tolist()


def test_processes_with_one_number_on_two_machines_draw_other_points(tmp_path: Path) -> None:
    hands = [search(tmp_path / host, process=Process(host, 7, 0.0)) for host in ("one", "two")]
    one, two = (takes(hand, 1)[0].params for hand in hands)
    assert one["lr"] != two["lr"]


def test_a_name_that_is_another_sweeps_is_refused(tmp_path: Path) -> None:
    def opened(**definition: Any) -> Search:
        return Search("tune", tmp_path / "journal.log", GOAL, Process.this(), space(), definition=definition)

    opened(objectives=["val_dice"], seed=0)
    opened(objectives=["val_dice"], seed=0)
    with pytest.raises(ConfigError, match=r"The sweep tune was begun with other settings \(objectives\)"):
        opened(objectives=["val_loss"], seed=0)


# ---- exactly n_trials


def test_a_search_ends_with_n_trials_that_finished_or_were_pruned(tmp_path: Path) -> None:
    hand = search(tmp_path, 6, pruner="none")
    count = 0
    while trial := hand.take():
        count += 1
        if count % 3 == 0:
            hand.fail(trial.number, "broken", retry=False)
        elif count % 3 == 1:
            hand.prune(trial.number)
        else:
            hand.complete(trial.number, [0.5])
    assert states(hand) == {"finished": 3, "pruned": 3, "failed": 2}
    assert hand.over()


def test_a_search_can_be_prolonged(tmp_path: Path) -> None:
    finish(search(tmp_path, 3))
    assert len(finish(search(tmp_path, 5))) == 2
    assert finish(search(tmp_path, 4)) == []


def test_while_trials_run_there_is_nothing_to_take_but_it_is_not_over(tmp_path: Path) -> None:
    hand, other = search(tmp_path, 2, retries=1), search(tmp_path, 2, retries=1, process=living())
    first, second = takes(hand, 2)
    assert other.take() is None
    assert not other.over(), "one may fail and come back"
    hand.complete(first.number, [1.0])
    hand.fail(second.number, "broken", retry=True)
    again = other.take()
    assert again
    assert (again.params, attempt(hand, again)) == (second.params, 2)
    other.complete(again.number, [1.0])
    assert hand.over()
    assert other.over()


def test_threads_share_a_search(tmp_path: Path) -> None:
    hand = search(tmp_path, 20, retries=1, sampler="random")
    taken: list[Trial] = []

    def work() -> None:
        while not hand.over():
            if trial := hand.take():
                taken.append(trial)
                if trial.number % 4 == 0 and attempt(hand, trial) == 1:
                    hand.fail(trial.number, "broken", retry=True)
                else:
                    hand.complete(trial.number, [0.5])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(hand)["finished"] == 20
    assert len({trial.number for trial in taken}) == len(taken)


# ---- how a trial ends


@pytest.mark.parametrize("kind", [grid, search])
def test_a_failed_trial_is_tried_again_as_often_as_retries_say(kind: Callable[..., Search], tmp_path: Path) -> None:
    hand = kind(tmp_path, 1, retries=2) if kind is grid else kind(tmp_path, 1, space("x=interval(0.0,9.0)"), retries=2)
    tried = []
    for _ in range(3):
        (trial,) = takes(hand, 1)
        tried.append(trial)
        hand.fail(trial.number, f"broken {attempt(hand, trial)}", retry=True)
    assert len({(str(trial.params), trial.overrides) for trial in tried}) == 1
    assert hand.failures() == [(trial.number, f"broken {attempt(hand, trial)}") for trial in tried]
    frame = hand.frame()
    assert list(frame["retried"]) == [True, True, False]
    assert list(frame["attempt"]) == [1, 2, 3]
    if kind is grid:
        assert hand.take() is None
        assert hand.over()
    else:
        assert takes(hand, 1)[0].params != tried[0].params, "a search draws another"


def test_a_hopeless_trial_is_not_tried_again(tmp_path: Path) -> None:
    hand = grid(tmp_path, 1, retries=5)
    (trial,) = takes(hand, 1)
    hand.fail(trial.number, "wrong at mlflow://me:secret@host", retry=False)
    assert hand.over()
    assert hand.failures() == [(0, "wrong at mlflow://me:***@host")]


def test_what_has_ended_stays_as_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hand = grid(tmp_path, 1, retries=1)
    (trial,) = takes(hand, 1)
    hand.complete(trial.number, [0.5])
    hand.fail(trial.number, "late", retry=True)
    hand.prune(trial.number)
    hand.complete(trial.number, [0.9])
    hand.note(trial.number, run_id="late")
    assert [record.message for record in caplog.records] == [
        "Trial 0 had been given up before it was failed.",
        "Trial 0 had been given up before it was pruned.",
    ]
    assert hand.frame().to_dict("records")[0]["val_dice"] == 0.5
    assert hand.over()


# ---- pruning

PRUNERS = {
    "median": {"n_startup_trials": 3, "n_warmup_steps": 1},
    "hyperband": {"min_resource": 1, "max_resource": 9, "reduction_factor": 3},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
}


def curve(hand: Search, trial: Trial, height: float, steps: int = 6) -> bool:
    """Reports a trial's epochs, as its own process does; whether it was pruned."""
    judge = Judge(hand.name, hand.address, trial.id, hand.goal.pruner, hand.goal.pruner_options)
    if any(judge.stops(step, height + 0.001 * step) for step in range(1, steps + 1)):
        hand.prune(trial.number)
        return True
    hand.complete(trial.number, [height])
    return False


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_pruner_stops_bad_trials_and_lets_good_ones_end(pruner: str, tmp_path: Path) -> None:
    hand = search(tmp_path, 30, pruner=pruner, pruner_options=PRUNERS[pruner], sampler="random")
    for n, trial in enumerate(takes(hand, 10)):
        curve(hand, trial, 0.5 + 0.01 * n)
    bad = [curve(hand, trial, 0.1) for trial in takes(hand, 8)]
    good = [curve(hand, trial, 0.7 + 0.01 * n) for n, trial in enumerate(takes(hand, 4))]
    assert sum(bad) >= 6
    assert not any(good)
    rows = hand.frame()
    pruned = rows[rows["state"] == "pruned"]
    assert len(pruned) >= sum(bad)
    assert pruned["val_dice"].between(0.1, 0.7).all(), "what it had reached"


def test_without_a_pruner_nothing_is_pruned(tmp_path: Path) -> None:
    hand = search(tmp_path, 20, pruner="none")
    assert not any(
        curve(hand, trial, height) for trial, height in zip(takes(hand, 20), [0.9] * 19 + [0.0], strict=True)
    )


# ---- processes that die

HAND = """
import os, signal, sys
os.fsync = lambda file: None
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_search import *

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, settings = Path({path!r}), {settings!r}
{code}
"""


def run_code(path: Path, code: str, **settings: Any) -> int:
    """Runs ``code`` in a process of its own; its exit status."""
    script = HAND.format(tests=str(Path(__file__).parent), path=str(path), settings=settings, code=code)
    return subprocess.run([sys.executable, "-c", script], timeout=300, check=False).returncode


KILLED = -signal.SIGKILL


def test_what_a_killed_process_ran_is_taken_again(tmp_path: Path) -> None:
    code = "hand = search(path, **settings); a, b, c = takes(hand, 3); hand.complete(b.number, [1.0]); die()"
    assert run_code(tmp_path, code, n_trials=4, retries=1) == KILLED
    hand = search(tmp_path, 4, retries=1)
    assert states(hand) == {"killed": 2, "finished": 1}
    first, third, fourth = takes(hand, 3)
    assert [(trial.number, trial.again) for trial in (first, third, fourth)] == [(0, True), (2, True), (3, False)]
    assert str(first.params["model"]) in str(first.overrides)
    hand.complete(first.number, [0.5])
    hand.fail(third.number, "killed", retry=True)
    hand.complete(fourth.number, [0.5])
    (again,) = finish(hand)
    assert (again.params, attempt(hand, again)) == (third.params, 2)
    assert states(hand) == {"finished": 4, "failed": 1}


def test_what_a_living_process_runs_is_left_to_it(tmp_path: Path) -> None:
    takes(search(tmp_path, 3, process=living()), 2)
    hand = search(tmp_path, 3)
    assert [trial.number for trial in takes(hand, 1)] == [2]
    assert hand.take() is None
    assert not hand.over()


def test_a_sweep_that_nobody_shares_takes_whatever_was_under_way(tmp_path: Path) -> None:
    takes(search(tmp_path, process=Process("elsewhere/1", 1, 0.0)), 2)
    hand = Search("tune", tmp_path / "journal.log", replace(GOAL, n_trials=8), Process.this(), space())
    assert [trial.number for trial in takes(hand, 3)] == [0, 1, 2]


def test_a_process_killed_while_it_enters_jobs_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    code = """
import optuna
enter, left = optuna.Study.enqueue_trial, 2
def counted(*arguments, **named):
    global left
    left = left - 1 if left else die()
    enter(*arguments, **named)
optuna.Study.enqueue_trial = counted
grid(path, 4)
"""
    assert run_code(tmp_path, code) == KILLED
    assert [trial.overrides for trial in finish(grid(tmp_path, 4))] == [(f"seed={n}",) for n in range(4)]


@pytest.mark.parametrize("moment", ["suggest_categorical", "set_user_attr"])
def test_a_trial_that_a_killed_process_had_not_yet_got_is_completed(moment: str, tmp_path: Path) -> None:
    """It drew its values, or was about to sign that it did; a start that was entered beforehand is not lost."""
    code = f"""
import optuna
hand = search(path, starts=[{{"model": "swin", "lr": 0.001}}], **settings)
optuna.Trial.{moment} = die
hand.take()
"""
    assert run_code(tmp_path, code, n_trials=3) == KILLED
    hand = search(tmp_path, 3, starts=[{"model": "swin", "lr": 0.001}])
    first, *_ = done = finish(hand)
    assert (first.params["model"], first.params["lr"], attempt(hand, first)) == ("swin", 0.001, 1)
    assert len(done) == 3
    assert states(hand) == {"finished": 3}


def test_a_process_of_another_machine_is_gone_when_it_gives_no_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = search(tmp_path, 3, process=Process("elsewhere/1", 1, 0.0)), search(tmp_path, 3)
    takes(there, 2)
    takes(here, 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    there.beat()
    monkeypatch.setattr(time, "time", lambda: now + 450)
    assert here.take() is None
    monkeypatch.setattr(time, "time", lambda: now + 550)
    assert [trial.number for trial in takes(here, 2)] == [0, 1]
    here.fail(1, "its machine is gone", retry=False)
    there.complete(1, [9.0])
    here.complete(0, [1.0])
    assert here.frame().query("state == 'finished'")["number"].tolist() == [0], "too late"


WORK = """
hand = search(path, **settings)
while not hand.over():
    if trial := hand.take():
        if trial.number % 5 == 4 and attempt(hand, trial) == 1:
            hand.fail(trial.number, "broken", retry=True)
        else:
            hand.complete(trial.number, [trial.params["lr"]])
hand.close()
"""


def side_by_side(path: Path, processes: int, code: str = WORK, **settings: Any) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(run_code(path, code, **settings))) for _ in range(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * processes


@pytest.mark.slow
def test_processes_at_once_on_one_journal_end_with_n_trials(tmp_path: Path) -> None:
    settings = {"n_trials": 15, "retries": 1, "sampler": "random"}
    side_by_side(tmp_path, 3, **settings)
    frame = search(tmp_path, **settings).frame()
    assert Counter(frame["state"])["finished"] == 15
    assert frame["lr"].nunique() == 15, "each its own point"
    failed, again = frame[frame["state"] == "failed"], frame[frame["attempt"] == 2]
    assert sorted(failed["lr"]) == sorted(again["lr"])


@pytest.mark.parametrize("end", ['{"op_code": 4, "wor', "\0\0\0\n"], ids=["cut", "zeros"])
def test_a_journal_is_read_on_where_a_full_disk_or_a_power_failure_broke_a_line(tmp_path: Path, end: str) -> None:
    hand = grid(tmp_path, 2)
    with (tmp_path / "journal.log").open("a") as file:
        file.write(end)
    assert len(finish(grid(tmp_path, 2))) == 2
    assert states(hand) == {"finished": 2}


# ---- what it shows


def test_the_frame_tells_all_of_every_trial(tmp_path: Path) -> None:
    among = space("lr=interval(0.5,1.0)", "model=choice(a,b)", "x=interval(0.5,1.0)", x={"model": "b"})
    hand = search(
        tmp_path, 4, among, [{"model": "a", "lr": 0.75}, {"model": "b"}, {"lr": 0.5, "model": "b"}], retries=1
    )
    first, second, third = takes(hand, 3)
    hand.note(first.number, run_id="abc", predictions="/out/predictions/run_abc")
    hand.complete(first.number, [0.5])
    hand.fail(second.number, "out of memory", retry=True)
    assert not Judge("tune", hand.address, third.id, "none", {}).stops(4, 0.25)
    hand.prune(third.number)
    frame = hand.frame()
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
    hand = grid(tmp_path, 6, directions=(direction,))
    assert hand.best().empty
    for trial, value in zip(takes(hand, 5), (0.5, 0.9, 0.9, 0.1, 0.1), strict=True):
        hand.complete(trial.number, [value])
    (last,) = takes(hand, 1)
    Judge("grid", hand.address, last.id, "none", {}).stops(1, 99.0 if direction == "maximize" else -99.0)
    hand.prune(last.number)
    (best,) = hand.best().to_dict("records")
    assert best["number"] == winner
    assert hand.overrides({"seed": best["seed"]}) == (f"seed={winner}",)


def test_of_several_objectives_the_pareto_front_is_best(tmp_path: Path) -> None:
    hand = grid(tmp_path, 5, objectives=("dice", "params"), directions=("maximize", "minimize"))
    for trial, values in zip(takes(hand, 5), [(0.5, 5), (0.9, 9), (0.4, 6), (0.6, 2), (0.9, 10)], strict=True):
        hand.complete(trial.number, values)
    assert hand.best()["number"].tolist() == [1, 3]
    assert hand.best()["params"].tolist() == [9.0, 2.0]


def test_the_parent_is_whoever_said_so_first(tmp_path: Path) -> None:
    hand, other = search(tmp_path), search(tmp_path)
    assert hand.parent is None
    assert hand.set_parent_once("aaa") == "aaa"
    assert other.set_parent_once("bbb") == "aaa"
    assert (hand.parent, other.parent) == ("aaa", "aaa")
    assert hand.frame().empty, "it is no trial"
