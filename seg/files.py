"""Files and folders that are whole or absent: written beside their place, then renamed. Imports nothing of seg."""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)*|\.draft-[0-9a-f]{32}")  # as atomic and atomic_folder name them

PRIVATE = 0o750
"""Mode of folders with pictures of patients: for the owner and, where the umask lets it, the owner's group."""


def private_folder(path: Path) -> None:
    """Makes the folder ``path`` where it is missing, with the mode PRIVATE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(PRIVATE, exist_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` and renames it into place on success.

    On an error, a full disk included, the temporary file is removed and what was at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{''.join(path.suffixes)}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes ``content`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    with atomic(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yields a new folder ``.draft-…`` beside ``path`` and renames it into place on success.

    Its permissions are ``mode`` less the umask.

    A non-empty folder that is already at ``path`` is left alone and the draft removed: of several
    processes the first to finish is kept. On an error the draft is removed.
    """
    draft = path.with_name(f".draft-{uuid.uuid4().hex}")
    draft.mkdir(mode, parents=True)
    try:
        yield draft
        try:
            draft.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Removes what a process that was killed left half-written in ``folder``, where none may be writing now."""
    for path in [path for path in folder.rglob(".*") if _DRAFT.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def file_name(name: str, otherwise: str) -> str:
    """``name`` as that of a file: word characters, ``.`` and ``-``, no leading point; ``otherwise`` if none is left."""
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".") or otherwise


def sha256(*paths: Path) -> str:
    """Hexadecimal sha256 of the bytes of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:  # in pieces: a checkpoint may be large
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def digest(content: object) -> str:
    """Hexadecimal sha256 of plain data, by way of its JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(content: Mapping[str, object], indent: int | None = None) -> str:
    """Plain data as JSON with its own digest, so that ``unseal`` notices damage."""
    plain = json.loads(json.dumps(content))
    return json.dumps(plain | {"sha256": digest(plain)}, indent=indent)


def unseal(text: str | bytes, *, earlier: bool = False) -> dict[str, Any]:
    """What ``seal`` was given; with ``earlier`` also JSON of earlier versions, which has no digest.

    Raises:
        ValueError: the text is damaged.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} in place of an object")
    written = content.pop("sha256", None)
    if written != digest(content) and not (earlier and written is None):
        raise ValueError("its content does not have its checksum")
    return content


def tuples(value: Any) -> Any:
    """Nested lists, as JSON has them, as tuples; anything else unchanged."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
