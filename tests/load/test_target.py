import pytest
from resmem_service.errors import LoadFailed
from resmem_service.load.target import Target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:8080", Target("127.0.0.1", 8080)),
        ("http://127.0.0.1:8080/", Target("127.0.0.1", 8080)),
        ("http://model.example", Target("model.example", 80)),
        ("https://model.example", Target("model.example", 443, secure=True)),
        ("http://[::1]:8080", Target("::1", 8080)),
        ("http://model.example/v1/", Target("model.example", 80, prefix="/v1")),
    ],
)
def test_urls(url: str, target: Target) -> None:
    assert Target.parse(url) == target
    assert Target.parse(target.url) == target


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8080", "localhost", "ftp://here", "http://", "http://here:many", "http://here:99999",
     "http://me:secret@here", "http://here?a=b"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        Target.parse(url)
    assert failed.value.field == "url"


def test_request() -> None:
    target = Target("::1", 8080, prefix="/v1")
    head, _, body = target.post("/predict", b"{}", {"authorization": "Bearer k"}).partition(
        b"\r\n\r\n"
    )
    assert body == b"{}"
    assert head.decode().split("\r\n") == [
        "POST /v1/predict HTTP/1.1",
        "host: [::1]:8080",
        "content-type: application/json",
        "content-length: 2",
        "authorization: Bearer k",
    ]


def test_another_kind_of_body() -> None:
    request = Target("here", 80).post("/x", b"\0", {"content-type": "application/octet-stream"})
    assert request.count(b"content-type") == 1
    assert b"application/octet-stream" in request


def test_only_https_is_encrypted() -> None:
    assert Target.parse("http://here").tls() is None
    assert Target.parse("https://here").tls() is not None
