"""The log of memories: the system of record for everything that was learned online.

In: rows, tombstones and the segments built from them. Out: changes since a position, in the order
of their commits. `journal` is the protocol, `group_commit` shares one transaction among requests,
`retention` says what to forget, and `sqlite` is the engine. All SQL of the package is in there.
Imports nothing of the memory but its rows and what a state folder looks like.
"""
