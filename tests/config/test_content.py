from typing import Any

import pytest
from composing import composed

from seg.config.content import config_hash, number, plain
from seg.errors import without_passwords


def test_the_hash_ignores_where_and_sees_what() -> None:
    base = config_hash(composed())
    assert config_hash(composed("paths.outputs=elsewhere", "tracking=none")) == base
    assert config_hash(composed("seed=1")) != base


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("http://ann:secret@host/x", "http://ann:***@host/x"),
        ("postgresql://ann:s:e@c@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://host/db?user=x&password=y", "postgresql://host/db?user=x&password=***"),
        ("http://host/x", "http://host/x"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
    ],
)
def test_passwords_leave_addresses(address: str, safe: str) -> None:
    assert without_passwords(address) == safe
    cfg = composed(f"tracking.uri='{address}'")
    assert plain(cfg)["tracking"]["uri"] == safe


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("-2.5", -2.5), ("x", "x"), (7, 7), (None, None)])
def test_the_number_that_a_text_is(value: Any, expected: Any) -> None:
    assert number(value) == expected
    assert type(number(value)) is type(expected)
