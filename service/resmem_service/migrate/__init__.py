"""Carries the memories that one version of a model learned into the state of another.

In: two bundles and the state of the older one. Out: rows in the journal of the newer one, with
embeddings and residuals of its own model. Beside a running service or without one. It imports
`bundle`, `inference` and `memory`; only `cli` imports it.
"""
