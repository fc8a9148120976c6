"""Chaos: kills and pauses of every process by seed while clients drop, reconnect elsewhere and count every byte.

    make chaos TASKS=2000 SEED=7
    python -m tests.chaos --tasks 2000 --seed 7

Asserted: no acknowledged task without exactly one end, no byte lost, doubled or wrong, one usage record each.
"""
