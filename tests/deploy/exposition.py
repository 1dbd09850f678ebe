"""What the service exports, and what a PromQL expression asks for."""

import re
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from resmem_service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Statistics:
    sealed_rows: int = 1
    growing_rows: int = 1
    nbytes: int = 1
    segments: int = 1
    revision: int = 1
    recall: float = 1.0
    unsealed_bytes: int = 1
    unsealed_bytes_limit: int = 2
    unusable_segments: int = 0
    unreadable_rows: int = 0
    journal_readable: bool = True
    journal_writable: bool = True


def exported() -> dict[str, set[str]]:
    """Sample names of `/metrics`, each with its label names."""
    metrics = Metrics([("/predict", "POST", "200")], ["queue_full"])
    metrics.serve(
        name="fashion", version="1", provider="cpu", memory=Statistics, queued_rows=lambda: 0
    )
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.scrape().decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


# Prometheus adds these to everything that it scrapes.
TARGET_LABELS = {"instance", "job"}

_SELECTOR = re.compile(r"(resmem_\w+)(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def complaints(expression: str, samples: dict[str, set[str]]) -> list[str]:
    """What an expression asks for that the service does not export."""
    found = []
    known = set(TARGET_LABELS)
    for name, matchers in _SELECTOR.findall(expression):
        if name not in samples:
            found.append(f"no metric {name}")
            continue
        labels = samples[name] | TARGET_LABELS
        known |= labels
        asked = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
        found += [f"{name} has no label {label}" for label in asked if label not in labels]
    for group in _GROUPING.findall(expression):
        labels = {label.strip() for label in group.split(",")}
        found += [f"nothing to group by {label}" for label in labels - known]
    return found
