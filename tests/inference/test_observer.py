import numpy as np
from resmem_service.inference.observer import (
    InferenceObserver,
    OnlineScores,
    SilentInferenceObserver,
)


def test_nobody_watches_without_harm() -> None:
    nobody: InferenceObserver = SilentInferenceObserver()
    nobody.on_batch(1, [0.0])
    nobody.on_stage("base", 0.0)
    nobody.on_corrections(np.zeros(1), np.zeros(1, np.float32))
    nobody.on_learned(OnlineScores(1, 0.0, 0.0, 0, 0))
