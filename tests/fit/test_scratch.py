import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from resmem_service.fit.scratch import Scratch

from tests.fit.models import digits

X, Y = digits()


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint8])
def test_parts_become_one_table_in_a_file(tmp_path: Path, kind: type[np.generic]) -> None:
    table = (X * 100).astype(kind)
    kept = Scratch(tmp_path).keep(table[rows : rows + 300] for rows in range(0, len(X), 300))
    np.testing.assert_array_equal(kept, table)
    assert type(kept) is np.ndarray
    assert kept.dtype == kind
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [table.nbytes]
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 0


def test_tables_do_not_meet(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    one, two = scratch.keep([X[:5]]), scratch.keep([np.asfortranarray(X[5:9])])
    np.testing.assert_array_equal(one, X[:5])
    np.testing.assert_array_equal(two, X[5:9])
    with pytest.raises(ValueError, match="needs rows"):
        scratch.keep([])


def test_a_refusing_disk_is_an_error_and_no_end_of_the_process(tmp_path: Path) -> None:
    """In a process of its own: the limit holds for whatever it writes, its output to a file too."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from resmem_service.fit.scratch import Scratch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))\n"
        "try:\n"
        "    Scratch(Path(sys.argv[1])).keep([np.zeros((300, 64), np.float32)])\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "File too large\n"
