"""Wall seconds of what must answer at once: ``--cfg job`` and a configuration error."""

import subprocess
import sys
import time

import numpy as np

REPEATS = 9


def main() -> None:
    for arguments in (["--cfg", "job"], ["trainer.max_epoch=3"], ["data.fold=9"], ["--help"]):
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "seg.train", *arguments], capture_output=True, check=False)
            seconds.append(time.perf_counter() - start)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"seg.train {' '.join(arguments)}: median {np.median(seconds):.2f} s ({spread})")


if __name__ == "__main__":
    main()
