"""Files that are whole or absent: written beside their place, then renamed into it. Imports nothing of seg."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` and renames it into place on success.

    On an error, a full disk included, the temporary file is removed and what lay at ``path`` is untouched.
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
