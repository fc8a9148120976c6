"""Who leads, who joins, who may store."""

from services.cache.core.flight import Flight, Join, Lead, may_store, meet
from services.cache.core.lookup import Ask, Hit, answers, questions

CRITICAL, STANDARD, BATCH = 1, 2, 3


def ask(task, rank=STANDARD, key=b"k"):
    return Ask(key, Flight(rank, f"fence-{task}", task), 60.0)


def through(asks, found):
    asked = questions(asks)
    return answers(asks, asked, [found(a) for a in asked])


def test_the_first_leads_and_the_second_joins():
    """An empty table gives the lead."""
    first = Flight(STANDARD, "f", "one")
    assert meet(None, first) == Lead("f")
    assert meet(first, Flight(STANDARD, "g", "two")) == Join("one")


def test_nobody_joins_a_leader_of_a_lower_class():
    """Critical work would wait in the batch lane; it leads by itself, and batch work joins it."""
    batch, critical = Flight(BATCH, "f", "slow"), Flight(CRITICAL, "g", "urgent")
    assert meet(batch, critical) == Lead("g")
    assert meet(critical, batch) == Join("urgent")


def test_a_leader_that_asks_again_leads_on_under_its_old_fence():
    """A retry of the same submission must not follow itself."""
    assert meet(Flight(STANDARD, "old", "one"), Flight(STANDARD, "new", "one")) == Lead("old")


def test_a_replaced_leader_may_not_store():
    """A leader whose time ran out may, if nobody took its place."""
    assert may_store(Flight(STANDARD, "f", "one"), "f")
    assert not may_store(Flight(CRITICAL, "g", "two"), "f")
    assert may_store(None, "f")
    assert may_store(Flight(CRITICAL, "g", "two"), "")


def test_a_flight_survives_its_encoding():
    """What Redis holds is read back."""
    flight = Flight(STANDARD, "f00d", "abc234")
    assert Flight.decode(flight.encode()) == flight


def test_identical_requests_of_one_batch_are_one_question():
    """The first leads, the others join it without asking."""
    asks = [ask("a"), ask("b"), ask("x", key=b"other"), ask("c")]
    assert [a.asker.task for a in questions(asks)] == ["a", "x"]
    assert through(asks, lambda a: Lead(a.asker.fence)) == [Lead("fence-a"), Join("a"), Lead("fence-x"), Join("a")]


def test_the_most_urgent_of_a_batch_asks_for_all():
    """So nobody of the batch joins a leader of a lower class."""
    asks = [ask("slow", BATCH), ask("urgent", CRITICAL), ask("usual", STANDARD)]
    assert through(asks, lambda a: Lead(a.asker.fence)) == [Join("urgent"), Lead("fence-urgent"), Join("urgent")]


def test_all_of_a_batch_get_the_answer_or_the_leader_that_one_found():
    """A hit is everybody's; so is a leader."""
    asks = [ask("a"), ask("b", BATCH)]
    assert through(asks, lambda _: Hit(b"text", 1.0)) == [Hit(b"text", 1.0)] * 2
    assert through(asks, lambda _: Join("elsewhere")) == [Join("elsewhere")] * 2


def test_a_task_never_joins_itself():
    """Submitted twice in one batch, or again beside others while it leads."""
    assert through([ask("a"), ask("a")], lambda a: Lead(a.asker.fence)) == [Lead("fence-a")] * 2
    assert through([ask("b"), ask("a")], lambda _: Join("a")) == [Join("a"), Lead("")]
