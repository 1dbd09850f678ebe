"""Tests of the statistics that the quality benchmarks report."""
