"""HTTP: bytes come in, rows go to the predictor, bytes go out. Knows no SQL, no index, no ONNX.

    edge (auth, counting, every error's answer)
      -> predict, memorize, inference_protocol's infer (one decode, one encode, past FastAPI's own
         handling)
      -> memories, model, health (plain FastAPI routes)

`surface` lists every route once; `schemas` documents them in OpenAPI; `content_coding` undoes and
does compression; `gate` says whether there is a model to ask yet. It owns nothing but the count of
requests in flight. It imports `service.inference` and, through it, what the memory returns; never
`service.bundle` or `service.cli`.
"""
