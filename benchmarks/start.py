"""Processor seconds of a start, in a second run: what must answer at once, the first step, and ``debug=fast``."""

import os
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

import numpy as np

SEG = ("-m", "seg.train")
FIRST_STEP = """
import os, seg.train
train = seg.train.train
def until_the_first_step(*arguments):
    from torch.optim.optimizer import register_optimizer_step_post_hook as after_step
    seconds = []
    after_step(lambda *_: seconds.append(sum(os.times()[:4])))
    result = train(*arguments)
    print("first step", *seconds[:1], file=__import__("sys").__stderr__)
    return result
seg.train.train = until_the_first_step
seg.train.run()
"""


def main() -> None:
    with TemporaryDirectory() as folder:
        again = f"paths.outputs={folder}"
        measured("import hydra, the yardstick", 9, "-c", "import hydra")
        measured("--cfg job", 9, *SEG, "--cfg", "job")
        measured("a wrong key", 9, *SEG, "trainer.max_epoch=3")
        measured("a wrong value", 9, *SEG, "data.fold=9")
        measured("a wrong option", 9, *SEG, "model=unett")
        measured("--help", 9, *SEG, "--help")
        measured("command to first step", 3, "-c", FIRST_STEP, "debug=fast", again, first=True)
        measured("debug=fast", 3, *SEG, "debug=fast", again)


def measured(name: str, repeats: int, *arguments: str, first: bool = False) -> None:
    """Prints the median and the range; ``first``: of what was spent until the first optimizer step of a whole run.

    One call more goes before: it makes the data and the database, and is not counted.
    """
    processor, wall = [], []
    for _ in range(1 + repeats):
        before, start = os.times(), time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        after = os.times()
        wall.append(time.perf_counter() - start)
        processor.append(sum(after[2:4]) - sum(before[2:4]))
        if first:
            processor[-1] = float(done.stderr.rpartition("first step ")[2].split()[0])
    counted = processor[1:]
    whole = " of the whole run" if first else ""
    print(
        f"{name}: processor {np.median(counted):.2f} s ({min(counted):.2f} to {max(counted):.2f}), "
        f"wall{whole} {np.median(wall[1:]):.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
