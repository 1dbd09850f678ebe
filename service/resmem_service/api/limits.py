"""What one request may ask for."""

from dataclasses import dataclass

from resmem_service.errors import TooManyRows

__all__ = ["RequestLimits"]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on a single request; the batcher has its own on all of them together."""

    max_body_bytes: int = 64 * 2**20
    max_request_rows: int = 4096
    max_neighbours: int = 100

    def check_rows(self, inputs: object) -> None:
        """Refuses too many rows before any work is done on them; what is not a list passes.

        Raises:
            TooManyRows: more than `max_request_rows`, in any one input.
        """
        parts = inputs.values() if isinstance(inputs, dict) else (inputs,)
        for part in parts:
            if isinstance(part, list):
                self.check_row_count(len(part))

    def check_row_count(self, rows: int) -> None:
        """Refuses a request of too many rows.

        Raises:
            TooManyRows: more than `max_request_rows`.
        """
        if rows > self.max_request_rows:
            raise TooManyRows(
                f"{rows} rows are over the limit of {self.max_request_rows}", "inputs"
            )
