from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.tables import TableMissing, diamonds, letters

HEADER = "carat,cut,color,clarity,depth,table,price,x,y,z"
STONE = "0.23,Ideal,E,SI2,61.5,55,{price},3.95,3.98,2.43"


def test_features_of_a_diamond_are_numbers_with_the_best_grade_highest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_DIAMONDS_TEST", 1)
    path = tmp_path / "diamonds.csv"
    path.write_text("\n".join([HEADER, *(STONE.format(price=p) for p in (326, 327, 328))]) + "\n")
    split = diamonds(path)
    expected = [np.log(0.23), 61.5, 55, 3.95, 3.98, 2.43, 4, 5, 1]
    np.testing.assert_allclose(split.train_x, [expected] * 2, rtol=1e-6)
    prices = np.exp(np.concatenate([split.train_y, split.test_y]))
    np.testing.assert_allclose(np.sort(prices), [326, 327, 328], rtol=1e-5)


def test_a_diamond_listed_twice_is_never_test_row_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_DIAMONDS_TEST", 1)
    path = tmp_path / "diamonds.csv"
    path.write_text("\n".join([HEADER, *(STONE.format(price=p) for p in (1, 2, 1, 2))]) + "\n")
    split = diamonds(path)
    assert len(split.train_y) == len(split.test_y) == 1
    assert split.train_y[0] != split.test_y[0]


def test_missing_tables_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TableMissing, match=r"pip download --no-deps plotnine"):
        diamonds(tmp_path / "none.csv")
    with pytest.raises(TableMissing, match=r"apt-get install r-cran-mlbench.*dpkg -x"):
        letters(tmp_path / "none.rda")
