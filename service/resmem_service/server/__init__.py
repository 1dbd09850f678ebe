"""Servers: processes, sockets and signals around the app.

    one worker      LoneServer(app), in this process
    several         Supervisor: binds the socket, keeps the workers alive, takes the signals
                      -> WorkerProcess, one each: starts it and talks to it
                      -> worker.main in the child: Control obeys, WorkerServer(app) answers

A client's bytes go this way, limited at each step by what `Connections` allows:

    HttpProtocol -> head, ChunkedBody -> Exchange -> the app
                 -> Refusals, for what never gets as far

`messages` is all that supervisor and workers say to each other, over a pipe of their own. The
supervisor serves nothing and loads no model. It imports `app` only in the processes that
answer requests; nothing but `cli` imports this package.
"""
