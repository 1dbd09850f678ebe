"""Builds the search kernel; everything else about the package stands in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

NATIVE = Path("service/memory/native")

setup(
    ext_modules=[
        # No -march=native: the kernel picks its instruction set when it is loaded, so that one
        # build runs on every machine of its architecture.
        Pybind11Extension(
            "service.memory._kernel",
            [str(NATIVE / "module.cpp")],
            depends=sorted(str(path) for path in NATIVE.iterdir()),
            cxx_std=17,
            extra_compile_args=["-O3", "-Wall", "-Wno-psabi"],
        )
    ]
)
