import subprocess
import sys

import pytest
from resmem_service.errors import BundleError
from resmem_service.extra import require


def test_what_is_there_is_not_asked_for() -> None:
    require("json", "anything")


def test_what_is_missing_names_its_command() -> None:
    with pytest.raises(BundleError, match=r"reading.*needs.*: pip install 'resmem-service\[fit\]'"):
        require("no_such_package_at_all", "reading")


def test_fitting_without_onnx_names_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "from resmem_service.errors import BundleError\n"
        "try:\n"
        "    import resmem_service.fit.fit\n"
        "except BundleError as error:\n"
        "    assert 'resmem-service[fit]' in error.message\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
