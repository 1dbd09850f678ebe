"""Triton's own client, as published, against the real server with the bundle that ships."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.end_to_end.server import Server

STORE = Path("model_store")
SAMPLE = Path("tests/data/fashion_mnist_test_500.npz")
OUTPUTS = ("scores", "base", "correction", "label")
KEY = "a-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"RESMEM_PREDICT_KEYS": KEY, "RESMEM_MAX_REQUEST_ROWS": "500"}
    with Server(STORE, tmp_path_factory.mktemp("state"), environment=settings) as server:
        yield server


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    with np.load(SAMPLE) as sample:
        found: NDArray[np.uint8] = sample["images"]
    return found


@pytest.fixture(scope="module")
def expected(server: Server, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What `/predict` says to all 500."""
    answer = server.client.post("/predict", json={"inputs": images.tolist()}, headers=HEADERS)
    expected = answer.json()["predictions"]
    return {
        "scores": np.array([one["scores"] for one in expected], np.float32),
        "base": np.array([one["base"]["scores"] for one in expected], np.float32),
        "correction": np.array([one["correction"] for one in expected], np.float32),
        "label": np.array([one["label"].encode() for one in expected], dtype=np.object_),
    }


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(server)) as client:
        yield client


def address(server: Server) -> str:
    url = httpx.URL(str(server.client.base_url))
    return f"{url.host}:{url.port}"


def images_input(
    images: NDArray[Any], datatype: str = "UINT8", *, binary: bool = True
) -> triton.InferInput:
    tensor = triton.InferInput("image", list(images.shape), datatype)
    return tensor.set_data_from_numpy(images, binary_data=binary)


def same(result: triton.InferResult, expected: dict[str, NDArray[Any]], rows: int) -> None:
    for name, array in expected.items():
        found = result.as_numpy(name)
        if name == "label":  # out of JSON the client makes strings of them
            words = [one.encode() if isinstance(one, str) else one for one in found]
            found = np.array(words, dtype=np.object_)
        assert np.array_equal(found, array[:rows]), name


def test_what_there_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fashion")
    assert client.is_model_ready("fashion", "1")
    assert not client.is_model_ready("fashion", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("fashion", headers=HEADERS)
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert [output["name"] for output in metadata["outputs"]] == list(OUTPUTS)
    assert client.get_model_metadata("fashion", "1", headers=HEADERS) == metadata


@pytest.mark.parametrize("rows", [1, 256, 500])
@pytest.mark.parametrize("binary", [True, False])
def test_everything_is_answered_where_nothing_is_asked_for(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
    binary: bool,
    rows: int,
) -> None:
    tensor = images_input(images[:rows], binary=binary)
    same(client.infer("fashion", [tensor], headers=HEADERS.copy()), expected, rows)


@pytest.mark.parametrize("answer", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compression(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
    binary: bool,
    request_: str | None,
    answer: str | None,
) -> None:
    result = client.infer(
        "fashion",
        [images_input(images[:200], binary=binary)],
        outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS],
        headers=HEADERS.copy(),
        request_compression_algorithm=request_,
        response_compression_algorithm=answer,
    )
    same(result, expected, 200)


def test_what_the_client_asked_for_is_compressed(server: Server, images: NDArray[np.uint8]) -> None:
    """Its results do not show it."""
    body, length = triton.InferenceServerClient.generate_request_body([images_input(images)])
    answer = server.client.post(
        "/v2/models/fashion/infer",
        content=body,
        headers={
            **HEADERS,
            "Inference-Header-Content-Length": str(length),
            "Accept-Encoding": "gzip",
        },
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.content)


def test_outputs_id_and_version(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
) -> None:
    result = client.infer(
        "fashion",
        [images_input(images[:3])],
        model_version="1",
        request_id="request-1",
        outputs=[
            triton.InferRequestedOutput("label"),
            triton.InferRequestedOutput("scores", binary_data=False),
        ],
        headers=HEADERS.copy(),
        priority=1,
        timeout=10_000_000,
        parameters={"mine": "yes"},
    )
    same(result, {name: expected[name] for name in ("label", "scores")}, 3)
    response = result.get_response()
    assert response["id"] == "request-1"
    assert (response["model_name"], response["model_version"]) == ("fashion", "1")
    assert response["parameters"]["memory_size"] == 20000
    assert result.as_numpy("base") is None


def test_classification(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
) -> None:
    wanted = triton.InferRequestedOutput("scores", class_count=2)
    result = client.infer(
        "fashion", [images_input(images[:9])], outputs=[wanted], headers=HEADERS.copy()
    )
    best = result.as_numpy("scores")
    assert best.shape == (9, 2)
    labels = [row[0].split(b":")[2] for row in best]
    assert labels == expected["label"][:9].tolist()


@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", np.float32), ("INT64", np.int64)])
def test_other_numbers(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
    datatype: str,
    dtype: type[Any],
) -> None:
    tensor = images_input(images[:4].astype(dtype), datatype)
    same(client.infer("fashion", [tensor], headers=HEADERS.copy()), expected, 4)


def test_many_at_once(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    expected: dict[str, NDArray[Any]],
) -> None:
    waiting = [
        client.async_infer("fashion", [images_input(images[row : row + 1])], headers=dict(HEADERS))
        for row in range(20)
    ]
    for row, one in enumerate(waiting):
        label = one.get_result().as_numpy("label")[0]
        assert label == expected["label"][row]


def test_asyncio(
    server: Server, images: NDArray[np.uint8], expected: dict[str, NDArray[Any]]
) -> None:
    async def ask() -> triton.InferResult:
        async with triton_aio.InferenceServerClient(address(server)) as client:
            assert await client.is_model_ready("fashion")
            return await client.infer(
                "fashion",
                [images_input(images[:300])],
                headers=HEADERS.copy(),
                request_compression_algorithm="gzip",
                response_compression_algorithm="deflate",
            )

    same(asyncio.run(ask()), expected, 300)


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def test_it_shows_what_is_wrong(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    def ask(tensor: triton.InferInput, model: str = "fashion", **options: Any) -> tuple[str, str]:
        return refusal(client.infer, model, [tensor], headers=HEADERS.copy(), **options)

    good = images_input(images[:2])
    assert ask(good, "other") == ("404", "the model 'other' is not served here; 'fashion' is")
    assert ask(good, model_version="7")[0] == "404"
    assert ask(good, outputs=[triton.InferRequestedOutput("value")]) == (
        "422",
        "outputs: the model has no output 'value'; it has: scores, base, correction, label",
    )
    assert ask(images_input(images[:2, :27])) == (
        "422",
        "inputs: has shape [2, 27, 28]; each row must be uint8 of shape [28, 28]",
    )
    halves = images[:2] / np.float32(255)
    for binary in (True, False):
        status, message = ask(images_input(halves, "FP32", binary=binary))
        assert status == "422"
        assert "holds the fraction" in message
    nan = np.full((1, 28, 28), np.nan, np.float32)
    for binary in (True, False):
        status, message = ask(images_input(nan, "FP32", binary=binary))
        assert (status, "holds NaN" in message) == ("422", True)
    words = np.array([[b"\xff\xfe", b"no"]], dtype=np.object_)
    tensor = triton.InferInput("image", [1, 2], "BYTES").set_data_from_numpy(words)
    assert "the datatype 'BYTES'" in ask(tensor)[1]
    many = np.zeros((501, 28, 28), np.uint8)
    assert ask(images_input(many)) == ("413", "inputs: 501 rows are over the limit of 500")
    shared = triton.InferInput("image", [2, 28, 28], "UINT8")
    shared.set_shared_memory("region", 2 * 784)
    assert "shared memory is not served here" in ask(shared)[1]
    wanted = triton.InferRequestedOutput("scores")
    wanted.set_shared_memory("region", 80)
    assert "shared memory is not served here" in ask(good, outputs=[wanted])[1]


def test_keys(client: triton.InferenceServerClient, images: NDArray[np.uint8]) -> None:
    status, _ = refusal(client.infer, "fashion", [images_input(images[:1])])
    assert status == "401"
    assert refusal(client.get_model_metadata, "fashion")[0] == "401"


def test_what_is_not_served_is_said_in_words(client: triton.InferenceServerClient) -> None:
    for call in (client.get_model_repository_index, client.get_system_shared_memory_status):
        status, message = refusal(call)
        assert status == "404"
        assert "no such route" in message
