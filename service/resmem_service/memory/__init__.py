"""The residual memory: keeps residuals beside embeddings, finds the nearest, weighs and sums them.

In: embeddings, residuals and targets as arrays, inputs as opaque bytes. Out: corrections, and
records of single memories. It owns the state folder: the journal (SQLite, the system of record for
what was memorized online) and the sealed segments built from it.

    append -> journal (commit) -> growing segment (RAM, exact) -> sealed segment (mapped, graph)
    correct -> one kernel call over all segments -> Correction

Nothing here knows HTTP, ONNX, bundles or settings; it may import only `errors`,
`durable` and `resources`.
"""
