"""Load on a running server, and what came of it: what `resmem bench` runs, and every benchmark.

In: a `Load`, complete HTTP requests and how they follow one another. Out: a `Result`, when each
request was due and how long it took, by status; then a report and a plot of it.

    file or model metadata -> rows -> bodies -> Load -> connections -> Result -> report, plot

The client is a bare protocol over uvloop, since a general one would take more CPU than the server
that it measures. It owns nothing that lasts. It may import `bundle` and
`inference`, to read rows; in the service only `cli` imports it.
"""
