"""What of a client's text comes back."""

import pytest
from resmem_service.excerpt import excerpt, shortened


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", "'short'"),
        (b"x-none", "'x-none'"),
        (7, "7"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        ([-float("inf"), 1], "[-Infinity, 1]"),
        (0.5, "0.5"),
        (10**20, "an integer of more than 64 bits"),
        ([0] * 9, "a list of length 9"),
        (["a", [1, [2]]], "['a', [1, [2]]]"),
        ([[[[[0]]]]], "[[a list of length 1]]"),
        ({"a": 1}, "an object"),
    ],
)
def test_what_is_short_is_shown_whole(value: object, text: str) -> None:
    assert excerpt(value) == text


def test_what_is_long_is_cut_and_says_so() -> None:
    assert excerpt("x" * 5000, 10) == "'xxxxxxxxxx'... (5000 characters)"
    assert excerpt(b"x" * 5000, 10) == "'xxxxxxxxxx'... (5000 bytes)"
    assert shortened("abcdef", 3) == "abc..."
    assert shortened("abc", 3) == "abc"


def test_no_list_is_longer_than_a_text_may_be() -> None:
    assert excerpt([[[2**63] * 8] * 8] * 8) == f"[{', '.join(['a list of length 8'] * 8)}]"
    assert excerpt([2**63] * 8) == f"[{', '.join(['9223372036854775808'] * 8)}]"
    assert excerpt(["x" * 5000] * 8) == "a list of length 8"


def test_long_values_cost_nothing() -> None:
    """The digits of such an integer take an hour, or an error: there is a limit to them."""
    for value in ("é" * 10**7, b"\xff" * 10**7, 1 << 10**7, [[0]] * 10**6):
        assert len(excerpt(value)) < 5000
