#!/usr/bin/env python3
"""Writes air_quality.csv: made-up stations, so that a fresh database has something to show.

Nothing in it was measured. The numbers follow a daily course (traffic in the morning and evening, ozone in the
afternoon) with noise from a generator of this file's own, so every run on every machine writes the same bytes:

    python3 data/make_air_quality.py > data/air_quality.csv
"""

import math
from datetime import datetime, timedelta

STATIONS = {"synthetic_centre": 1.3, "synthetic_harbour": 1.1, "synthetic_north": 0.9, "synthetic_park": 0.6,
            "synthetic_school": 0.8}
BEGIN = datetime(2025, 3, 3)  # a Monday
HOURS = 7 * 24

state = 20250303


def noise():
    """Between 0.8 and 1.2, from a linear congruential generator (Numerical Recipes' constants)."""
    global state
    state = (1664525 * state + 1013904223) % 2**32
    return 0.8 + 0.4 * state / 2**32


def bump(hour, peak, width):
    """How close an hour is to the peak, from 0 to 1."""
    distance = min(abs(hour - peak), 24 - abs(hour - peak))
    return math.exp(-((distance / width) ** 2))


def values(hour, weekend, load):
    """One reading: so2, no2, co, o3, pm10, pm2_5; now and then an instrument is silent."""
    traffic = load * (0.3 + (bump(hour, 8, 2) + 0.9 * bump(hour, 19, 2.5)) * (0.5 if weekend else 1))
    dust = 12 * load + 14 * traffic
    concentrations = [
        (4 + 3 * traffic) * noise(),
        (12 + 38 * traffic) * noise(),
        (0.2 + 0.5 * traffic) * noise(),
        (30 + 45 * bump(hour, 15, 4) - 14 * traffic) * noise(),
        dust * noise(),
        0.55 * dust * noise(),
    ]
    return ["" if noise() > 1.196 else f"{value:.2f}" for value in concentrations]


def main():
    print("timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5")
    for number in range(HOURS):
        at = BEGIN + timedelta(hours=number)
        for station, load in STATIONS.items():
            row = values(at.hour, at.weekday() >= 5, load)
            print(f"{at:%Y-%m-%dT%H:%M:%SZ},{station},{','.join(row)}")


main()
