"""``python -m seg.sync run=<id>``: sends what MLflow did not get while it was away."""

from pathlib import Path

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, InputError, together
from seg.records.folder import RunFolder, claimed, find
from seg.records.pending import push_again
from seg.records.state import read_state


def main(cfg: DictConfig) -> None:
    """Sends every kept report of the runs that ``run`` names, and their networks where those are missing.

    Of all runs, what one of them lacks holds up no other; every fault is listed at the end. Of a
    server that failed twice in one way the others wait.

    Raises:
        ConfigError: the run is unknown or still going, or MLflow does not answer; nothing kept is lost by it.
        DataError: a run's network cannot be read.
    """
    outputs = Path(cfg.paths.outputs)
    waiting, faults, away = 0, list[str](), set[str | None]()
    for run in claimed(outputs) if cfg.run == "all" else [find(outputs, str(cfg.run))]:
        state = read_state(run.run)
        if not state or not run.is_pending or state.uri in away:
            continue
        waiting += 1
        if state.true_status == "RUNNING":
            why = (
                f"Run {run.short} is still running as process {state.process.pid} of {state.process.host} and sends "
                f"its own record. If that machine is gone, set the status in {run.run / 'state.json'} to KILLED."
            )
            if cfg.run != "all":
                raise ConfigError(why)
            print(why)
            continue
        try:
            _send(run, state.name, cfg.tracking.uri)
        except (InputError, OSError) as error:
            if cfg.run != "all":
                raise
            if str(error) in faults:  # the second time: of the server, and so of every run that is there
                away.add(state.uri)
            else:
                faults.append(str(error))
    together(ConfigError, faults)
    if not waiting:
        print(f"Nothing is waiting to be sent under {outputs / 'runs'}.")


def _send(run: RunFolder, name: str, uri: str | None) -> None:
    print(f"run {run.short} ({name}): sent to {push_again(run, uri)}")
    if run.model_pending.exists():
        from seg.deploy.logged import log_model

        print(f"run {run.short} ({name}): its network is {log_model(run, uri).model_uri}")


run = verb("sync", main)

if __name__ == "__main__":
    run()
