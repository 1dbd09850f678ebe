"""FastAPI as its tutorial has it: bodies declared with pydantic, the model run in the function.

`async def`, which saves a hand-over to a thread for each request: the model takes microseconds.
"""

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.speed.servers.model import DigitsModel

app = FastAPI()
_model = DigitsModel()


class Question(BaseModel):
    """Rows of 64 numbers."""

    inputs: list[list[float]]


class Scores(BaseModel):
    """For each row 10 numbers."""

    scores: list[list[float]]


@app.post("/predict")
async def predict(question: Question) -> Scores:
    """Rows in, scores out."""
    return Scores(scores=_model.scores(question.inputs).tolist())
