"""Benches: each prints a table for people and, as its last line, one JSON object with value, unit, target and whether it holds.

    make bench                       lists them
    make bench NAME=ack              runs one (median of three)
    python -m tests.bench ack --runs 1 --seconds 20

Load is open loop and latencies count from the intended instant. None fails a build: machines differ, ratios and medians tell.
"""
