"""Chaos: every process is killed, paused, slowed and cut off by seed, while clients drop, reconnect elsewhere and count every byte.

    make chaos TASKS=2000 SEED=7
    python -m tests.chaos --tasks 2000 --seed 7

schedule.py   what is hurt when: a pure function of the seed
strikes.py    faults that signals cannot do
reader.py     the client that counts
verdict.py    what must hold

A run lasts until so many tasks have ended and every process has been killed: a minute at least. Asserted: no acknowledged task
without exactly one end, no byte lost, doubled or wrong, its usage recorded once, or again in the same words; no traceback in a log.
"""
