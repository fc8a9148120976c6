"""How much work a worker asks for."""

import pytest

from services.worker.core.credits import CreditLedger, EngineHealth, free_slots


@pytest.mark.parametrize(
    ("slots", "running", "ending", "free"),
    [(8, 0, 0, 8), (8, 8, 0, 0), (8, 3, 8, 5), (8, 3, 10, 3), (8, 9, 0, 0), (2, 0, 40, 0)],
)
def test_ends_take_slots_only_when_they_pile_up(slots: int, running: int, ending: int, free: int) -> None:
    """One end per slot is free of charge; slots that were taken away count as used."""
    assert free_slots(slots, running, ending) == free


def test_credits_are_given_once() -> None:
    """What is outstanding is not given again, what was used is."""
    ledger = CreditLedger()
    assert ledger.due(4) == 4
    assert ledger.due(4) == 0
    ledger.used()
    assert ledger.due(3) == 0
    assert ledger.due(4) == 1


def test_a_new_stream_begins_without_credits() -> None:
    """The old ones are void on both sides."""
    ledger = CreditLedger()
    ledger.due(4)
    ledger.forget()
    assert ledger.due(2) == 2


def test_credits_are_never_taken_back() -> None:
    """Fewer free slots than credits outstanding give nothing, and no debt."""
    ledger = CreditLedger()
    ledger.due(4)
    assert ledger.due(1) == 0
    for _ in range(5):
        ledger.used()
    assert ledger.due(1) == 1


def test_an_engine_gets_work_only_when_it_is_ready() -> None:
    """It starts as not ready: it was not asked yet."""
    health = EngineHealth()
    assert not health.takes_work(0.0)
    health.ready = True
    assert health.takes_work(0.0)


def test_faults_in_a_row_pause_the_engine_longer_each_time() -> None:
    """The third pauses for 1 s, the fourth for 2 s, never more than 10 s."""
    health = EngineHealth()
    health.ready = True
    health.fault(0.0)
    health.fault(0.0)
    assert health.takes_work(0.0)
    health.fault(0.0)
    assert (health.takes_work(0.9), health.takes_work(1.0)) == (False, True)
    health.fault(1.0)
    assert (health.takes_work(2.9), health.takes_work(3.0)) == (False, True)
    for _ in range(60):
        health.fault(3.0)
    assert health.takes_work(13.0)


def test_a_success_forgives_all_faults() -> None:
    """One poisoned task between good ones pauses nobody."""
    health = EngineHealth()
    health.ready = True
    for at in range(10):
        health.fault(float(at))
        health.success()
    assert health.takes_work(9.0)
