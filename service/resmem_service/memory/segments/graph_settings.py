"""How hnswlib is to build a graph, and at what breadth the graph is then searched."""

from dataclasses import dataclass

__all__ = ["GraphSettings"]


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Links per row (twice as many on the lowest level), breadth of the build, threads."""

    m: int = 16
    ef_construction: int = 200
    threads: int = 0
    """0: one for each CPU that the process may use, its quota of CPU time included."""
    ef: int = 100
    """Breadth at which a segment is asked for its own rows before it is published: the one that
    searches use."""
