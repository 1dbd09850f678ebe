"""Large bodies: what is JSON passes; what is not is refused, as the parser would refuse it."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resmem_service.api import _json_scan
from resmem_service.api.body import decode_json
from resmem_service.api.json_grammar import CHECKED_BYTES, check_grammar
from resmem_service.errors import InvalidInput, MalformedBody

SEEDS = [
    b'{"a":[1,2.5e3,-0,"x\\n\\u00e9\\ud83d\\ude00",true,false,null],"b":{"c":"'
    + "é€😀".encode()
    + b'"}}',
    b'[[[-1.5E-3]],{"":"\\"\\\\"}, [ ] ]\n',
]
PIECES = [bytes([each]) for each in b'{}[]",:0123.eE+-\\udtfn \x00\xff\xc3\x80\xed\xf4'] + [
    *(b"\\u", b"\\ud800", b"\\udc00", "é".encode(), "€".encode(), "😀".encode(), b"\xed\xa0\x80"),
    *(b"\xc0\x80", b"\xf4\x90\x80\x80", b"1e", b"01", b"true", b"null", b""),
]


def kind(body: bytes) -> str:
    return _json_scan.first_fault(body, 1000, 100, 50)[0]


def is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


@settings(max_examples=2000)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(PIECES))),
)
def test_it_agrees_with_the_parser(seed: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for at, dropped, piece in edits:
        at %= len(seed) + 1
        seed = seed[:at] + piece + seed[at + dropped :]
    body = b"[" + seed + b"]"  # a number at the very end may go on
    if kind(body) != "odd":
        assert (kind(body) == "") == is_json(body)
    else:
        assert decode_json(body)  # as NaN, infinities or numbers that no float64 holds


@given(st.sampled_from(SEEDS), st.integers(0, 200))
def test_no_beginning_of_json_is_refused(seed: bytes, size: int) -> None:
    check_grammar(seed[:size], whole=False)
    if size < len(seed.rstrip()):
        with pytest.raises(MalformedBody, match="ends too early"):
            check_grammar(seed[:size])


def large(middle: bytes) -> bytes:
    return b'{"ids":[],"inputs":[' + b"0.25," * (CHECKED_BYTES // 4) + middle + b"]}"


def test_a_large_body_is_decoded_as_a_small_one() -> None:
    assert decode_json(large(b'"a"')) == orjson.loads(large(b'"a"'))
    for number in (b"NaN", b"-Infinity", b"1e999"):
        found = decode_json(large(number))
        assert isinstance(found, dict)
        assert repr(found["inputs"][-1]) == repr(float(number))
    assert decode_json(large(b"1e300")) == orjson.loads(large(b"1e300"))


@pytest.mark.parametrize("middle", [b"x", b"1,", b'"a', b"01", b'"\xff"', b"]"])
def test_a_large_body_that_is_no_json(middle: bytes) -> None:
    body = large(middle)
    with pytest.raises(MalformedBody, match=r"not JSON: .* byte \d+") as caught:
        decode_json(body)
    at = int(str(caught.value).rpartition(" ")[2])
    assert body.index(middle + b"]}") <= at <= len(body)


@pytest.mark.parametrize("piece", [b'"%b"', b"%b", b"0.%b", b'{"%b":0}'])
def test_no_string_or_number_is_a_megabyte_long(piece: bytes) -> None:
    assert decode_json(large(piece % (b"1" * 300)))
    with pytest.raises(InvalidInput, match="1048576 bytes") as caught:
        decode_json(large(piece % (b"1" * (2**20 + 10))))
    assert caught.value.field == "inputs"


def test_a_key_that_is_too_long_is_named_by_its_beginning() -> None:
    with pytest.raises(InvalidInput, match="1048576 bytes") as caught:
        decode_json(b'{"' + b"k" * 2**24 + b'":1}')
    assert caught.value.field is not None
    assert caught.value.field.startswith('"kkk')
    assert len(caught.value.field) <= 1024


def test_a_large_body_that_is_nested_too_deeply() -> None:
    with pytest.raises(InvalidInput, match="1024 levels") as caught:
        decode_json(large(b"[" * 2000 + b"]" * 2000))
    assert caught.value.field == "inputs"
