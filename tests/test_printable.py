import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain äöü 中 🙂 \\", "plain äöü 中 🙂 \\"),
        ("two\r\nlines\ttab", "two\\r\\nlines\\ttab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J \x7f \x85 \x00", "\\x9b2J \\x7f \\x85 \\x00"),
        ("a\u2028b\u2029c \u202egnp.exe \u2066", "a\\u2028b\\u2029c \\u202egnp.exe \\u2066"),
        ("half \udc80 \ud83d", "half \\udc80 \\ud83d"),
    ],
)
def test_what_is_not_printed_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_line_that_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
