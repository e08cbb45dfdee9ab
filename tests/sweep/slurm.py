"""A cluster of one node for the tests: SLURM's own daemons, in a folder and on ports of their own.

``apt-get install slurm-wlm munge`` brings the programs; no service needs to run. Accounting would take a database
server, so ``sacct``, which submitit asks for a job's state, is answered by ``scontrol show job`` here. All else is
SLURM. Where the system lets us (root does, most containers do not), the node bears another name than this machine, so
that a job's process is one of another host, as on every real cluster.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
_SBIN = "/usr/sbin"  # daemons lie there, which is not on everybody's PATH
_CONF = """\
ClusterName=seg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=1
NodeName={node} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_SACCT = """\
#!/bin/sh
# submitit asks: sacct -o JobID,State,NodeList --parsable2 -j 1 -j 2
echo 'JobID|State|NodeList'
for word in "$@"; do
  case $word in
    [0-9]*) scontrol --oneliner show job "$word" 2> /dev/null |
      sed -nE 's/^JobId=([0-9]+) .* JobState=([A-Z_]+) .* NodeList=([^ ]*) .*$/\\1|\\2|\\3/p' ;;
  esac
done
"""


class Slurm:
    """What a test asks of the cluster."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:{_SBIN}",
        }

    def ask(self, *command: str) -> str:
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def cancel(self, job: str) -> None:
        self.ask("scancel", job)

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs that have not ended, or of those in one of ``states``."""
        chosen = ("--states", ",".join(states)) if states else ()
        return self.ask("squeue", "--noheader", "--format", "%i", *chosen).split()


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:{_SBIN}")]


@contextmanager
def cluster(processors: int) -> Iterator[Slurm]:
    """A cluster of one node, idle when the test gets it and gone afterwards."""
    with ExitStack() as ended:
        # Not pytest's folder: munged wants its socket where all may go, and a socket's path is at most 107 characters.
        folder = Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        folder.chmod(0o755)
        slurm = Slurm(folder)
        host = socket.gethostname().partition(".")[0]
        named = subprocess.run(["unshare", "--uts", "true"], check=False, capture_output=True).returncode == 0
        node = "node1" if named else host
        _write(folder, host, node, processors)
        munge = [f"--{name}={folder / file}" for name, file in (("socket", "munge.socket"), ("key-file", "munge.key"))]
        munge += [f"--{name}-file={folder / f'munge.{name}'}" for name in ("pid", "log", "seed")]
        ended.enter_context(_daemon(slurm, folder, "munged", "--foreground", *munge))
        _until((folder / "munge.socket").exists, folder)
        ended.enter_context(_daemon(slurm, folder, "slurmctld", "-D"))
        renamed = ("unshare", "--uts", "sh", "-c", f'hostname {node} && exec "$@"', "sh") if named else ()
        ended.enter_context(_daemon(slurm, folder, *renamed, "slurmd", "-D"))
        _until(lambda: _idle(slurm), folder)
        try:
            yield slurm
        finally:
            if left := slurm.jobs():
                slurm.ask("scancel", *left)
                _until(lambda: not slurm.jobs(), folder)


def _write(folder: Path, host: str, node: str, processors: int) -> None:
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    with closing(socket.socket()) as one, closing(socket.socket()) as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, other)]
    names = {"host": host, "node": node, "user": getpass.getuser()}
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder, ports=ports, processors=processors, **names))
    (folder / "bin" / "sacct").write_text(_SACCT)
    (folder / "bin" / "sacct").chmod(0o755)


@contextmanager
def _daemon(slurm: Slurm, folder: Path, *command: str) -> Iterator[None]:
    environment = os.environ | slurm.environment
    with (folder / f"{command[0]}.out").open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(slurm: Slurm) -> bool:
    try:
        return slurm.ask("sinfo", "--noheader", "--format", "%T").strip() == "idle"
    except subprocess.CalledProcessError:  # slurmctld does not listen yet
        return False


def _until(condition: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        said = "\n".join(path.read_text() for path in sorted(folder.glob("*.out")))
        assert time.monotonic() < end, f"SLURM did not come to that:\n{said}"
        time.sleep(0.1)
