"""Is the answer better with the memory than without it, and does teaching work?

In: public data sets; out: tables, `benchmarks/out/*.json`, pictures in `docs/images/` and
`docs/quality.md`. Each module with a `main` is one command, `python -m benchmarks.quality.<name>`.
Everything is measured through the real `resmem fit` and the real server over HTTP, so nothing here
imports the inside of the service. Needs the extras `train` (the Fashion-MNIST base) and `bench`.
"""
