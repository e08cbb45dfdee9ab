"""SIGINT and SIGTERM as a request to stop. Imports nothing of seg."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(note: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within it SIGINT and SIGTERM call ``note`` and end nothing; a SIGINT after another signal ends at once."""
    received = False

    def handle(number: int, _: object) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received = True
        note(signal.Signals(number))

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
