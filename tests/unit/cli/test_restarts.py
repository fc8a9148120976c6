"""When what died starts again."""

from services.cli.stack.core.restarts import FIRST_S, LONGEST_S, SETTLED_S, Restarts


def test_the_first_death_costs_no_wait():
    """A process that ran well starts again at once: a kill is repaired as fast as the process starts."""
    assert Restarts().died(up_s=SETTLED_S) == 0.0


def test_deaths_in_a_row_wait_longer_up_to_a_limit():
    """A process that cannot start does not burn the machine."""
    record = Restarts()
    pauses = [record.died(up_s=0.5) for _ in range(12)]
    assert pauses[:4] == [0.0, FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_S


def test_a_settled_process_is_forgiven():
    """After a long life the pauses begin anew, while the count of restarts goes on."""
    record = Restarts()
    for _ in range(5):
        record.died(up_s=0.5)
    assert record.died(up_s=SETTLED_S) == 0.0
    assert record.count == 6
