import pytest
from composing import composed

from seg.config.content import flat, plain
from seg.errors import nearest


@pytest.mark.parametrize(
    ("word", "right"),
    [("trainer.max_epoch", "trainer.max_epochs"), ("trainer.epochs", "trainer.max_epochs"), ("sede", "seed")],
)
def test_nearest_right_key(word: str, right: str) -> None:
    assert f"'{right}'" in nearest(word, list(flat(plain(composed()))))
