"""A run's folder of predictions: emptied before it is written again, and listed in a manifest once complete."""

import json
import shutil
import time
from pathlib import Path

from seg.errors import ConfigError
from seg.files import atomic_write, sha256
from seg.records.folder import OWNER, RunFolder, take

MANIFEST = "manifest.json"


def begin_predictions(folders: RunFolder) -> int:
    """Empties the run's own folder of predictions before it is written anew, and returns how many files that were.

    Raises:
        ConfigError: the folder is another run's; nothing was touched.
    """
    if not take(folders.predictions, folders.run_id):
        raise ConfigError(f"{folders.predictions} does not belong to run {folders.run_id}. Move it away, then resume.")
    return empty(folders.predictions)


def empty(folder: Path) -> int:
    """Removes all in ``folder`` but its owner's name, and returns how many files; links are removed, never followed."""
    count = 0
    for path in folder.iterdir():
        if path.name == OWNER:
            continue
        if path.is_dir() and not path.is_symlink():
            count += sum(not inner.is_dir() for inner in path.rglob("*"))
            shutil.rmtree(path)
        else:
            count += 1
            path.unlink()
    return count


def write_manifest(folders: RunFolder, *, config_hash: str, checkpoint_hash: str) -> Path:
    """Lists the run's predictions in ``manifest.json``, written last: if it exists, the folder is complete.

    Both hashes are sha256: of the configuration, and of the checkpoint that predicted.
    """
    root = folders.predictions
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in (OWNER, MANIFEST)]
    content = {
        "run_id": folders.run_id,
        "config_hash": config_hash,
        "checkpoint_hash": checkpoint_hash,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": [
            {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        ],
    }
    atomic_write(root / MANIFEST, json.dumps(content, indent=1))
    return root / MANIFEST
