"""The base model run over a file's rows, batch after batch."""

from collections.abc import Iterator

import numpy as np

from resmem_service.errors import BundleError, InvalidInput
from resmem_service.inference.base_model import BaseModel, BaseOutput
from resmem_service.inference.rows import Rows
from resmem_service.progress import Progress

__all__ = ["run_base"]


def run_base(
    model: BaseModel, rows: Rows, batch_rows: int, progress: Progress
) -> Iterator[BaseOutput]:
    """Run n rows and yield what the model says, batch after batch in their order.

    Raises:
        BundleError: the model refuses rows, or answers one with NaN or infinity; names it.
    """
    with progress.bar("base predictions", len(rows)) as advance:
        for start in range(0, len(rows), batch_rows):
            batch = rows.slice(start, min(start + batch_rows, len(rows)))
            try:
                output = model.run(batch)
            except InvalidInput as error:
                stop = start + len(batch) - 1
                raise BundleError(f"rows {start} to {stop}: {error.message}") from error
            for name, array in (("logits", output.logits), ("embedding", output.embeddings)):
                finite = np.isfinite(array).all(axis=1)
                if not finite.all():
                    raise BundleError(
                        f"the base model answers row {start + int(finite.argmin())} with NaN or "
                        f"infinity ({name}): look at that row and at the model"
                    )
            yield output
            advance(len(batch))
