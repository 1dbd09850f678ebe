import zipfile
from pathlib import Path

import pytest

from benchmarks.flights import FlightsMissing, load_flights

FLIGHTS = """year,month,day,hour,minute,origin,dest,distance,air_time
2013,2,1,6,30,JFK,IAH,1400,227
2013,1,1,5,15,EWR,MIA,1089,160.0
2013,1,1,5,15,LGA,MIA,1089,NA
2013,1,2,5,15,LGA,SJU,1598,150
"""
AIRPORTS = "faa,name,lat,lon\nIAH,Houston,29.98,-95.34\nMIA,Miami,25.79,-80.29\n"


def test_flights_come_in_order_of_time_without_those_that_never_arrived(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHTS)
    (tmp_path / "airports.csv").write_text(AIRPORTS)
    flights = load_flights(tmp_path)
    assert flights.day.tolist() == [0, 31]
    assert flights.air_time.tolist() == [160, 227]
    assert flights.features[1].tolist() == pytest.approx([1400, 29.98, -95.34, 1, 0, 6.5, 31])


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FlightsMissing, match="pip download"):
        load_flights(tmp_path)
