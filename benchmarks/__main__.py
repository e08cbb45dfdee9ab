"""``python -m benchmarks``: every measurement, one after the other; or those named.

``drift`` (thousands of simulated logs), ``models`` (half an hour),
``predict`` (large scans), ``conformal`` (trains for 5 minutes), ``leaks`` (copies of scans), ``planning`` and
``anchors`` (thousands of simulated studies), ``calibration`` (a minute), ``steps`` (minutes) and ``compare`` (needs
Chromium) run only by name.
``--avx2`` lets a processor with AVX-512 compute as one without it. RESULTS.md keeps what was printed, and where.
"""

import os
import platform
import subprocess
import sys

QUICK = (
    "start",
    "cache",
    "loop",
    "memory",
    "augmentation",
    "attention",
    "panels",
    "statistics",
    "sweeps",
    "serving",
    "export",
)
BY_NAME = (
    "drift",
    "compare",
    "models",
    "predict",
    "conformal",
    "leaks",
    "planning",
    "calibration",
    "anchors",
    "steps",
)
# PyTorch's own kernels, oneDNN's and MKL's; seg then takes float32, as on such a processor.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def main() -> int:
    if "--avx2" in sys.argv:
        sys.argv.remove("--avx2")
        os.environ |= AVX2
    names = sys.argv[1:] or list(QUICK)
    if unknown := set(names) - {*QUICK, *BY_NAME}:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join((*QUICK, *BY_NAME))}", file=sys.stderr)
        return 2
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    failed = 0
    for name in names:
        print(f"\n## {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
