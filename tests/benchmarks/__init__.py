"""Tests of what the benchmarks compute; the benchmarks themselves are run by hand."""
