"""Four-panel pictures by seg.pages against matplotlib's savefig of the same picture at the same size in pixels.

``python benchmarks/panels.py`` prints the median seconds of each and the ratio. Of matplotlib only savefig is timed,
not the making of the figure; on our side the whole of ``panel`` counts, the write to disk included.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from benchmarks.timing import median_seconds
from seg.pages.panels import panel
from seg.pages.picture import HEADINGS, Picture, error_codes
from seg.study.drawing import ERROR_COLORS, class_colors

REPEATS = 15


def example(rows: int, columns: int) -> Picture:
    """A smooth noisy image with two structures and a prediction that is off by a little."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 2)
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    label = (((y - 0.4) ** 2 + (x - 0.5) ** 2 < 0.05).astype(np.uint8)) + ((y > 0.5) & (abs(x - 0.5) < 0.15))
    pred = np.roll(label, (max(1, rows // 40), -max(1, columns // 30)), (0, 1))
    low, high = np.percentile(image, (0.5, 99.5))
    return Picture(
        image=image,
        label=label,
        pred=pred,
        spacing_mm=(1.0, 1.0),
        window=(low, high),
        title="hippocampus_001",
        subtitle="axial slice 17 of 0–34  ·  case dice 0.873  ·  run a1b2c3d4",
        classes={1: "anterior 0.90", 2: "posterior 0.86"},
        edges=("R", "A", "L", "P"),
    )


def figure(picture: Picture, size: tuple[int, int], dpi: int = 300) -> Figure:
    """The same picture as a matplotlib figure: images, translucent masks, outlines, title, legend."""
    fig = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi)
    FigureCanvasAgg(fig)
    colors, errors = class_colors(2), list(ERROR_COLORS.values())
    codes = [None, picture.label, picture.pred, error_codes(picture.label, picture.pred)]
    for n, (name, mask) in enumerate(zip(HEADINGS, codes, strict=True)):
        axes = fig.add_axes((0.01 + n * 0.247, 0.15, 0.24, 0.65))
        axes.imshow(picture.image, cmap="gray", vmin=picture.window[0], vmax=picture.window[1], interpolation="bicubic")
        axes.set_title(name, fontsize=10, fontweight="bold")
        axes.axis("off")
        if mask is not None:
            inks = errors if n == 3 else colors
            drawn = np.ma.masked_equal(mask, 0)
            axes.imshow(drawn, cmap=ListedColormap(inks), vmin=1, vmax=len(inks), alpha=0.35, interpolation="nearest")
            for k in range(1, int(mask.max()) + 1):
                axes.contour(mask == k, levels=[0.5], colors=[inks[k - 1]], linewidths=0.7)
    fig.text(0.01, 0.93, picture.title, fontsize=13, fontweight="bold")
    fig.text(0.01, 0.87, picture.subtitle, fontsize=9.5)
    named = zip([*picture.classes.values(), *ERROR_COLORS], [*colors, *errors], strict=True)
    fig.legend(handles=[Patch(color=ink, label=text) for text, ink in named], loc="lower left", ncols=6, fontsize=8)
    return fig


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours.png"), Path(folder, "matplotlib.png")
        for rows, columns in ((50, 35), (128, 128), (512, 512)):
            picture = example(rows, columns)
            panel(picture, ours)
            with Image.open(ours) as made:
                fig = figure(picture, made.size)
            seconds = median_seconds(lambda picture=picture: panel(picture, ours), REPEATS)
            reference = median_seconds(lambda fig=fig: fig.savefig(theirs, dpi=300), REPEATS)
            with Image.open(theirs) as theirs_made:
                assert max(abs(a - b) for a, b in zip(theirs_made.size, made.size, strict=True)) <= 1
            print(
                f"slice {rows}x{columns}, {made.size[0]}x{made.size[1]} pixels: panel {seconds:.3f} s "
                f"{ours.stat().st_size / 1e6:.2f} MB, savefig {reference:.3f} s {theirs.stat().st_size / 1e6:.2f} MB, "
                f"ratio {reference / seconds:.1f}"
            )


if __name__ == "__main__":
    main()
