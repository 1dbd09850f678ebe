"""Looks after a state from outside the server: inspect, verify, repair, back up, restore, carry.

In: a bundle and the state folder that belongs to it, beside a running service or without one. Out:
findings, reports, backup folders, JSON Lines and Parquet files. It owns nothing: what it writes
into a state goes through `memory`, under the lock where segments are concerned.

    state -> JournalSnapshot (one moment) -> findings | inspection | backup | exported rows
    backup -> checked copy -> state          file -> checked rows -> ResidualMemory.append

It may import `bundle`, `inference` and `memory`; only `cli` imports it.
"""
