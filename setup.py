"""Builds what is written in C++; everything else about the package stands in pyproject.toml.

Two variables of the environment are for those who work on it: RESMEM_WERROR=1 makes warnings of the
compiler errors, and RESMEM_SANITIZE names sanitizers to build with (`.ci/sanitize` does).
"""

import os
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

SANITIZERS = os.environ.get("RESMEM_SANITIZE", "")


def flags() -> list[str]:
    """For the compiler; they come after those that Python was built with."""
    # GCC notes that vectors are passed otherwise since release 4.6: here no other module sees them.
    warnings = ["-Wall", "-Wextra", "-Wno-psabi"]
    if SANITIZERS:
        # Containers check their indexes as well. The first finding ends the process.
        return [
            *warnings, f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer", "-O1", "-g1", "-D_GLIBCXX_ASSERTIONS",
        ]  # fmt: skip
    if os.environ.get("RESMEM_WERROR") == "1":
        warnings.append("-Werror")
    # No -march=native: the kernel picks its instruction set when it is loaded, so that one build
    # runs on every machine of its architecture.
    return ["-O3", *warnings]


def extension(name: str, main: str) -> Pybind11Extension:
    """A module from one translation unit and the headers beside it."""
    source = Path(main)
    return Pybind11Extension(
        name,
        [str(source)],
        depends=sorted(str(path) for path in source.parent.iterdir()),
        cxx_std=17,
        extra_compile_args=flags(),
        extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
    )


setup(
    ext_modules=[
        extension(
            "resmem_service.memory.search._kernel",
            "service/resmem_service/memory/search/native/module.cpp",
        ),
        extension(
            "resmem_service.api._json_scan", "service/resmem_service/api/native/json_scan.cpp"
        ),
        extension(
            "resmem_service.inference._nested_lists",
            "service/resmem_service/inference/native/nested_lists.cpp",
        ),
    ]
)
