"""Where every number of the README comes from, each one command.

In: public data sets that the user's machine already has; out: printed tables, JSON under
`benchmarks/out/` and the pictures and pages of `docs/`. Owned by nobody at run time: the service
never imports this package, and this package reaches the service as a user does, through the
`resmem` command and HTTP, except where a file says otherwise.
"""
