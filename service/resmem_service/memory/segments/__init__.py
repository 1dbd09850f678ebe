"""Segments: growing in RAM, sealed and mapped, and the work that turns one into the other.

In: rows from the journal. Out: folders with a graph, vectors, residuals and checksums, and the set
of segments that a correction searches. `policy` says what to build next, `sealer` has it built,
`segment_builder` starts the process that does, and `segment_set` is what readers see.
"""
