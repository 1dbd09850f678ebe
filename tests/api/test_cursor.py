import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.api.cursor import cursor_of, sequence_in

SEQUENCES = st.integers(-(2**63), 2**63 - 1)


@given(SEQUENCES)
def test_a_cursor_comes_back_as_its_sequence(sequence: int) -> None:
    cursor = cursor_of(sequence)
    assert sequence_in(cursor) == sequence
    assert cursor.removeprefix("~").replace("-", "a").replace("_", "a").isalnum(), "fit for a URL"


@given(st.text())
def test_no_id_that_people_give_is_a_cursor(text: str) -> None:
    assert sequence_in(text) is None
    assert sequence_in("~" + text) is None


@given(SEQUENCES, st.integers(0, 16), st.sampled_from("Aa9_-=~ é"))
def test_a_changed_cursor_is_none(sequence: int, at: int, character: str) -> None:
    cursor = cursor_of(sequence)
    changed = cursor[:at] + character + cursor[at + 1 :]
    assert sequence_in(changed) in ((sequence,) if changed == cursor else (None,))


@pytest.mark.parametrize("text", ["", "~", "~~", "a1", cursor_of(7) + "=", cursor_of(7)[1:]])
def test_what_is_no_cursor(text: str) -> None:
    assert sequence_in(text) is None
