import json
from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import LoadFailed
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.load.bodies import bodies_of, random_rows, read_body

from tests.conftest import FittedModel

ROOT = Path(__file__).parents[2]


def test_every_row_is_sent(digits: FittedModel) -> None:
    rows = Rows({"pixels": digits.inputs[:100]})
    bodies = [json.loads(body) for body in bodies_of(rows, 8, {"fields": ["label"]})]
    assert len(bodies) == 13
    assert all(body["fields"] == ["label"] and len(body["inputs"]) == 8 for body in bodies)
    sent = np.concatenate([body["inputs"] for body in bodies]).astype(np.float32)
    np.testing.assert_array_equal(sent[:100], digits.inputs[:100])
    np.testing.assert_array_equal(sent[100:], digits.inputs[:4], "the last one begins again")


def test_bodies_are_bounded_in_number_and_bytes(digits: FittedModel) -> None:
    rows = Rows({"pixels": digits.inputs})
    assert len(bodies_of(rows, 1, {})) == 256
    wide = Rows({"pixels": np.tile(digits.inputs, (4, 1))})
    assert sum(map(len, bodies_of(wide, 4000, {}))) <= 64 * 2**20


def test_fewer_rows_than_a_request_has_are_repeated(digits: FittedModel) -> None:
    (body,) = bodies_of(Rows({"pixels": digits.inputs[:1]}), 3, {})
    np.testing.assert_array_equal(
        np.array(json.loads(body)["inputs"], np.float32), digits.inputs[[0, 0, 0]]
    )


def test_several_inputs_are_sent_by_name() -> None:
    rows = Rows({"a": np.zeros((2, 3), np.float32), "b": np.ones((2, 1), np.int64)})
    (body,) = bodies_of(rows, 2, {})
    assert json.loads(body) == {"inputs": {"a": [[0.0] * 3] * 2, "b": [[1]] * 2}}


def test_noise_fits_the_model() -> None:
    specs = [
        TensorSpec("a", "float16", (2, 3)),
        TensorSpec("b", "uint8", (4,)),
        TensorSpec("c", "int64", ()),
        TensorSpec("d", "bool", (1,)),
    ]
    (body, *_) = bodies_of(random_rows(specs), 2, {})
    rows = Rows.convert(json.loads(body)["inputs"], specs)
    assert len(rows) == 2
    assert rows.arrays["b"].max() > 1


def test_noise_of_any_length_is_not_made_up() -> None:
    with pytest.raises(LoadFailed, match=r"'tokens'.*--data"):
        random_rows([TensorSpec("tokens", "int64", (None,))])


def test_noise_of_large_rows_is_bounded() -> None:
    assert len(random_rows([TensorSpec("image", "float32", (3, 1024, 1024))])) == 1


def test_the_shipped_example_is_a_body() -> None:
    spec = TensorSpec("images", "uint8", (28, 28))
    rows, options = read_body(ROOT / "examples/fashion/predict.json", [spec])
    assert len(rows) == 1
    assert options["neighbours"] == 1
    (body,) = bodies_of(rows, 1, options)
    assert json.loads(body) == json.loads((ROOT / "examples/fashion/predict.json").read_text())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("{}", "not a JSON object"),
        ('{"inputs": [[1, 2]]}', r"inputs: .*shape"),
    ],
)
def test_what_is_no_body(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "body.json"
    path.write_text(text)
    with pytest.raises(LoadFailed, match=why):
        read_body(path, [TensorSpec("x", "float32", (3,))])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="No such file"):
        read_body(tmp_path / "none.json", [])
