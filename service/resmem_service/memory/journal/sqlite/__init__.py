"""The embedded engine of the journal: SQLite in WAL mode with `synchronous=FULL`, through APSW.

One file beside its log; any number of processes. Every statement of SQL is in this package.
"""
