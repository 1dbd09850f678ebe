"""HTTP: bytes come in, rows go to the predictor, bytes go out. Knows no SQL, no index, no ONNX.

    middleware (auth, counting, every error's answer)
      -> predict, memorize, inference_protocol's infer (one decode, one encode, past FastAPI's own
         handling)
      -> memories, model, health (plain FastAPI routes)

`routes` lists every route once; `schemas` documents them in OpenAPI; `content_coding` undoes and
does compression; `lifecycle` says whether there is a model to ask yet. It owns nothing but the
count of requests in flight. It imports `inference` and, through it, what the memory returns; never
`bundle` or `cli`.
"""
