"""ResMem service: an ONNX model answers, a memory of its past mistakes corrects the answer."""

import os
from importlib.util import find_spec

# Looked up, not imported: the background builder of segments never needs the runtime.
if find_spec("onnxruntime") is None:
    raise ImportError(
        "No ONNX Runtime is installed. Install the service with one of its extras: "
        "pip install 'resmem-service[cpu]' or, on a machine with an NVIDIA GPU, "
        "pip install 'resmem-service[gpu]'."
    )

# Releases from 1.29 on send usage data, names and hashes of models among it, to the runtime's maker
# unless this is set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
