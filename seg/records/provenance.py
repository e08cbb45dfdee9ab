"""Who ran which code where."""

import getpass
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from seg.files import digest, sha256

_CODE = _PACKAGE = Path(__file__).parents[1]


def common_tags() -> dict[str, str]:
    """Tags of every run: git commit, dirty flag and hash of the code, developer, environment."""
    commit = git("rev-parse", "HEAD").strip()
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # a container without users
        account = "unknown"
    packages = ", ".join(f"{name} {version_of(name)}" for name in ("seg", "torch", "monai"))
    return {
        "git_commit": commit or "none",
        "git_dirty": _dirty() if commit else "none",
        "code_hash": code_hash(),
        "developer": git("config", "user.name").strip() or account,
        "environment": f"{platform.node()}, {platform.platform()}, Python {platform.python_version()}, {packages}",
    }


@cache
def code_hash() -> str:
    """Of this package's own source files: it changes with any of them, committed or not."""
    files = sorted(path.relative_to(_PACKAGE).as_posix() for path in _PACKAGE.rglob("*.py"))
    return digest({name: sha256(_PACKAGE / name) for name in files})


def _dirty() -> str:
    """Whether code or configuration has changes that are not committed; unknown where git does not answer in time."""
    changed = git("status", "--porcelain", "--branch", "--", ":/*.py", ":/*.yaml")  # its first line says it answered
    return str(len(changed.splitlines()) > 1).lower() if changed else "unknown"


def git(*arguments: str) -> str:
    """What git prints in the repository of this package or, if it is in none, in that of the working folder.

    Nothing if there is no git, no repository, or no answer. What is not UTF-8 is replaced by ``�``.
    """
    return _printed(_CODE if _printed(_CODE, "rev-parse", "--git-dir") else Path(), *arguments)


def _printed(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "from a checkout"


def short(commits: str, length: int = 8) -> str:
    """The beginning of a commit; of a run that was continued with other code, of each."""
    return ", then ".join(commit[:length] for commit in commits.split(", then "))
