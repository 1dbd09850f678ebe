import pytest
from resmem_service.errors import LoadFailed
from resmem_service.load.inquiry import Inquiry
from resmem_service.load.target import Target

from tests.load.scripted_server import HANG_UP, OK, ScriptedServer, always


def answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


REFUSED = b'{"error":{"code":"unauthorized","message":"the key is unknown"}}'
WRONG = b'{"error":{"code":"invalid_input","message":"is missing","field":"inputs"}}'


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer("401 Unauthorized", REFUSED), "401: the key is unknown"),
        (answer("422 Unprocessable", WRONG), "422: inputs: is missing"),
        (answer("502 Bad Gateway", b"<html>"), "502: <html>"),
        (answer("500 Error", b"[]"), r"500: \[\]"),
        (HANG_UP, "is the server running"),
    ],
)
def test_a_request_that_is_refused_says_why(reply: bytes, why: str) -> None:
    with ScriptedServer(always(reply)) as server, pytest.raises(LoadFailed, match=why):
        Inquiry(server.target, {}).try_out("/predict", b"{}")


def test_the_key_goes_along() -> None:
    with ScriptedServer(always(answer("200 OK", b"{}"))) as server:
        Inquiry(server.target, {"authorization": "Bearer k"}).try_out("/predict", b"{}")
        (request,) = server.requests
        assert b"authorization: Bearer k" in request


def test_nobody_there() -> None:
    with ScriptedServer(always(OK)) as server:
        server.stop()
        with pytest.raises(LoadFailed, match=r"GET http.*/model: .*refused"):
            Inquiry(server.target, {}).model()


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(LoadFailed, match=r"is the server running"):
        Inquiry(Target("no-such-host.invalid", 80), {}).model()
