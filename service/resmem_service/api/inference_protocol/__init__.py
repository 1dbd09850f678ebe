"""The Open Inference Protocol, version 2: what Triton's and KServe's clients speak.

    bytes -> request (JSON, binary tensors behind it) -> rows -> the same predictor as `/predict`
          -> outputs -> response (JSON, binary tensors behind it) -> bytes

`datatypes`, `tensors` and `request` read, `outputs` and `response` write, `endpoint` joins them
around the predictor; `metadata` says what there is, `address` which model a path means, `errors`
what a failure looks like here, `schemas` documents it all in OpenAPI.

It owns nothing and imports what the rest of `api` does. Source: the protocol's page at
kserve.github.io/website (Open Inference Protocol V2), and of triton-inference-server/server
`docs/protocol/`: extension_binary_data.md, extension_classification.md.
"""
