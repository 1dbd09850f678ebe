"""The native look at a body before it is parsed, and after a parser has refused it."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.api._json_scan import excess, repeated_key, too_deep, without_not_finite

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


def counted(value: Any) -> tuple[int, int, int, int]:
    """Commas, lists, objects and strings that a value is written with."""
    if isinstance(value, dict):
        parts = list(value.values())
        own = (max(0, len(value) - 1), 0, 1, len(value))
    elif isinstance(value, list):
        parts, own = value, (max(0, len(value) - 1), 1, 0, 0)
    else:
        return 0, 0, 0, int(isinstance(value, str))
    values, lists, objects, strings = (
        sum(each) for each in zip(own, *map(counted, parts), strict=True)
    )
    return values, lists, objects, strings


@given(value=JSON)
def test_what_is_counted_is_what_is_there_and_no_text(value: Any) -> None:
    body = json.dumps({'[,{"': value}, ensure_ascii=False).encode(errors="surrogatepass")
    limits = counted({"": value})
    assert excess(body, *limits) is None
    for which in range(4):
        if limits[which]:
            fewer = [limit - (each == which) for each, limit in enumerate(limits)]
            found = excess(body, *fewer)
            assert found is not None
            assert found[0] == b'"[,{\\""' or fewer[2] == 0 or fewer[3] == 0


def test_where_there_is_too_much() -> None:
    body = b'{"ids": [1, 2], "inputs": [[1, 2], [3, 4], [5, 6]]}'
    assert excess(body, 7, 99, 99, 99) is None
    assert excess(body, 6, 99, 99, 99) == (b'"inputs"', 2)
    assert excess(body, 99, 3, 99, 99) == (b'"inputs"', 1)
    assert excess(body, 99, 99, 99, 1) == (b'"inputs"', 0)
    assert excess(b'{"inputs": {"x": [0, 0, 0]}}', 1, 9, 9, 9) == (b'"inputs"', 2)
    assert excess(b"[[], []]", 9, 1, 0, 0) == (None, 0)
    assert excess(rb'{"ids": ["\"\"\"\"", "b"]}', 9, 9, 9, 3) is None
    assert excess(rb'{"ids": ["\"\"\"\"", "b"]}', 9, 9, 9, 2) == (b'"ids"', 1)


@given(junk=st.binary(max_size=60))
def test_any_bytes_are_walked_to_their_end(junk: bytes) -> None:
    excess(junk, 0, 0, 0, 0)
    too_deep(junk, 1)
    without_not_finite(junk, 2)
    assert (repeated_key(junk) or (junk,))[0] in junk


def test_depth() -> None:
    assert too_deep(b'{"a": [[0]], "b": [[[0]]]}', 3) == b'"b"'
    assert too_deep(b'{"a": [[0]]}', 3) is None
    assert too_deep(b"[" * 5, 3) == b""
    assert too_deep(b'{"inputs":' + b"[" * 10**7, 1024) == b'"inputs"'


@pytest.mark.parametrize(
    ("body", "key", "top"),
    [
        (rb'{"a": {"b": 1}, "b": [{"a": 2}, {"a": "a: b"}], "c": "a", "": ":"}', None, None),
        (b'{"a": 1, "b": 2, "a" : 3}', b'"a"', b'"a"'),
        (rb'{"a": 1, "\u0061": 2}', rb'"\u0061"', rb'"\u0061"'),
        (rb'{"x": [{"\ud83d\ude00": 1, "\n/": 2}, {"\\": 1, "\u005C": 2}]}', rb'"\u005C"', b'"x"'),
        (rb'{"x": {"\/\u00E9\u20ac": 1, "/\u00e9\u20AC": 2}}', rb'"/\u00e9\u20AC"', b'"x"'),
        (b'[{"a": 1}, {"b": {"a": 2}, "b": 3}]', b'"b"', None),
        (b'{"x": {"a": {"a": {}}, "b": {"a": 1}}, "y": {"a": 1}}', None, None),
        (b'{"x": [' * 20 + b'{"a": 1, "a": 1}' + b"]}" * 20, None, None),
        (
            b"{" + b",".join(b'"%d":0' % number for number in range(5000)) + b',"7":0}',
            b'"7"',
            b'"7"',
        ),
    ],
)
def test_keys_that_an_object_has_twice(body: bytes, key: bytes | None, top: bytes | None) -> None:
    assert repeated_key(body) == (None if key is None else (key, top))


@given(keys=st.lists(st.text(max_size=3), max_size=6), escaped=st.integers(0, 1))
def test_a_key_is_the_same_however_it_is_written(keys: list[str], escaped: int) -> None:
    """Against a decoder that keeps one of each."""
    written = [json.dumps(key, ensure_ascii=n % 2 == escaped) for n, key in enumerate(keys)]
    body = "{" + ",".join(f"{key}:0" for key in written) + "}"
    found = repeated_key(body.encode())
    assert (found is not None) == (len(json.loads(body)) < len(keys))


NOT_FINITE = {
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
    "1e309": math.inf,
    "-1e999": -math.inf,
    "1.7976931348623159e308": math.inf,
    "9" * 400: math.inf,
    "0." + "0" * 50 + "1e400": math.inf,
    "1e" + "9" * 400: math.inf,
}


@pytest.mark.parametrize("text", NOT_FINITE)
def test_numbers_that_no_json_holds_are_found_with_the_way_to_them(text: str) -> None:
    body = f'{{"a": [1e308, "NaN"], "b": [0, {{"c": [{text}]}}]}}'.encode()
    found = without_not_finite(body, 8)
    assert found is not None
    rewritten, places = found
    assert orjson.loads(rewritten) == {"a": [1e308, "NaN"], "b": [0, {"c": [None]}]}
    [(value, path)] = places
    assert path == [b'"b"', 1, b'"c"', 0]
    assert value == NOT_FINITE[text] or (math.isnan(value) and text == "NaN")


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_stay(number: float) -> None:
    body = f"[{number!r}, 1.7976931348623157e308, 1e-999, 0e999, {'9' * 308}]".encode()
    assert without_not_finite(body, 8) is None


def test_only_the_first_ones_come_with_their_way() -> None:
    found = without_not_finite(b"[NaN, NaN, NaN]", 2)
    assert found is not None
    assert found[0] == b"[null, null, null]"
    assert [path for _, path in found[1]] == [[0], [1]]
