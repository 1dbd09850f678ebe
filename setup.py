"""Builds what is written in C++; everything else about the package stands in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup


def extension(name: str, main: str) -> Pybind11Extension:
    """A module from one translation unit and the headers beside it."""
    source = Path(main)
    return Pybind11Extension(
        name,
        [str(source)],
        depends=sorted(str(path) for path in source.parent.iterdir()),
        cxx_std=17,
        # No -march=native: the kernel picks its instruction set when it is loaded, so that one
        # build runs on every machine of its architecture.
        extra_compile_args=["-O3", "-Wall", "-Wno-psabi"],
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
