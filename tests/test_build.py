"""What is refused when the objects of a run are built."""

from pathlib import Path

import pytest
from composing import composed

from seg.build import build_setup
from seg.engine.device import choose_device, choose_precision
from seg.engine.distributed import World
from seg.errors import ConfigError
from seg.material import read_material


@pytest.mark.parametrize(("batch_size", "larger"), [(4, 6), (1, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(
    phantom_root: Path, tmp_path: Path, batch_size: int, larger: int
) -> None:
    given = {"data": "folder", "data.root": phantom_root, "paths.outputs": tmp_path, "data.batch_size": batch_size}
    cfg = composed(*(f"{key}={value}" for key, value in given.items()))
    precision = choose_precision("fp32", choose_device("cpu"))
    with pytest.raises(ConfigError, match=rf"data\.batch_size is {batch_size}.*3 processes.*batch_size={larger}"):
        build_setup(cfg, read_material(cfg), {}, World(size=3), precision)
