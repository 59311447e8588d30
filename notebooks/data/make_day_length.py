"""Writes day_length.csv: sunrise, sunset and length of the day at eight places through 2025.

Nothing in the table was measured or fetched. It is computed from the sun's mean longitude and mean
anomaly as a series in days since noon of 1 January 2000 (the low-precision formula of the
Astronomical Almanac, good to 0.01 degrees), at each place's local noon. The sun counts as risen
when its upper edge is seen at a flat horizon: its centre then stands 50 arc minutes below
(34 of refraction, 16 of the sun's radius). Against almanacs, sunrise and sunset agree to about
a minute, less well where the sun only grazes the horizon.

Where the sun does not rise or does not set on a day, there is no time: those fields are empty.

    python make_day_length.py    # writes day_length.csv beside this file
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from math import acos, asin, atan2, cos, degrees, radians, sin
from pathlib import Path

YEAR = 2025
ALTITUDE = radians(-50 / 60)
PLACES = {  # degrees north, degrees east
    "Tromsø": (69.65, 18.96),
    "Reykjavík": (64.15, -21.94),
    "Berlin": (52.52, 13.41),
    "Tokyo": (35.68, 139.69),
    "Cairo": (30.04, 31.24),
    "Quito": (-0.18, -78.47),
    "Cape Town": (-33.92, 18.42),
    "Ushuaia": (-54.80, -68.30),
}
COLUMNS = (
    "date", "place", "latitude", "longitude", "declination",
    "sunrise_utc", "sunset_utc", "day_length",
)  # fmt: skip


def sun(days: float) -> tuple[float, float]:
    """Declination in radians, and equation of time in hours, `days` after 2000-01-01 12:00 UTC."""
    longitude = radians((280.460 + 0.9856474 * days) % 360)
    anomaly = radians((357.528 + 0.9856003 * days) % 360)
    ecliptic = longitude + radians(1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly))
    tilt = radians(23.439 - 0.0000004 * days)
    ascension = atan2(cos(tilt) * sin(ecliptic), cos(ecliptic))
    ahead = (degrees(longitude - ascension) + 180) % 360 - 180
    return asin(sin(tilt) * sin(ecliptic)), ahead / 15


def row(day: date, place: str) -> list[str]:
    """One line of the table: angles in degrees, times in hours."""
    north, east = PLACES[place]
    epoch = datetime(2000, 1, 1, 12, tzinfo=UTC)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) - timedelta(hours=east / 15)
    declination, ahead = sun((noon - epoch) / timedelta(days=1))
    here = radians(north)
    cosine = (sin(ALTITUDE) - sin(here) * sin(declination)) / (cos(here) * cos(declination))
    fields = [day.isoformat(), place, f"{north:.2f}", f"{east:.2f}", f"{degrees(declination):.3f}"]
    if not -1 <= cosine <= 1:
        return [*fields, "", "", "24.000" if cosine < -1 else "0.000"]
    half = degrees(acos(cosine)) / 15
    middle = 12 - ahead - east / 15
    rises, sets = (middle - half) % 24, (middle + half) % 24
    return [*fields, f"{rises:.3f}", f"{sets:.3f}", f"{2 * half:.3f}"]


def table() -> str:
    """The whole file's text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    days = (date(YEAR, 1, 1) + timedelta(days=k) for k in range(365))
    writer.writerows(row(day, place) for day in days for place in PLACES)
    return out.getvalue()


if __name__ == "__main__":
    Path(__file__).with_name("day_length.csv").write_text(table(), encoding="utf-8")
