def excess(
    body: bytes | memoryview, values: int, lists: int, objects: int, strings: int
) -> tuple[bytes | None, int] | None:
    """Whether a body holds more commas, lists, objects or strings; None where it does not.

    Else the key of the top-level object where the first too many stands, as it is written, None
    where there is no key; and how many elements came before in the list that belongs to the key.
    """

def first_fault(
    body: bytes | memoryview, longest: int, deepest: int, most_of_key: int
) -> tuple[str, int, bytes | None]:
    """The first fault of a body, the byte where it is, and the top-level key that came before it.

    The fault is `syntax`: it is not JSON, where NaN and infinities pass as numbers; `long`: a
    string or number of more than `longest` bytes; `deep`: more than `deepest` levels; `end`: no
    fault, but it is not complete; `odd`: neither, but a number may not be a finite float64; or
    empty. The key is as it is written, at most `most_of_key` bytes; None where there is none.
    """

def too_deep(body: bytes | memoryview, depth: int) -> bytes | None:
    """The key, as it is written, below which more than `depth` lists and objects are nested.

    Empty where they belong to no key; None where nothing is nested so deeply.
    """

def repeated_key(body: bytes | memoryview) -> tuple[bytes, bytes | None] | None:
    """The first key that its object has twice, and the top-level key that it stands below.

    Both as they are written, and the same for a key of the top-level object. None where there is
    no such key in objects that are at most 40 levels deep. The body must be valid JSON.
    """

def without_not_finite(
    body: bytes | memoryview, most: int
) -> tuple[bytes, list[tuple[float, list[bytes | int | None]]]] | None:
    """A body with `null` in the place of NaN, infinities and numbers too large for a float64.

    And of the first `most` of these the value and the way to it: keys, as they are written, and
    indexes in lists. None where there is none.
    """
