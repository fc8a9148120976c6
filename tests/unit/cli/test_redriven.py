"""A dead task that is submitted again."""

from google.protobuf.duration_pb2 import Duration

from millrace.task.v1.task_pb2 import CacheTicket, Message, Route, Task
from services.cli.dead_letters import new_id, redriven

DEAD = Task(
    id="a" * 26, tenant="local", idempotency_key="k", model="tiny", pool="tiny", messages=[Message(role="user", content="hi")],
    route=Route(address="127.0.0.1:1", boot=1, handle=1), cache_ticket=CacheTicket(key=b"k"), joined="b" * 26,
    retention=Duration(seconds=300), metadata={"mine": "1"},
)  # fmt: skip
DEAD.submitted_at.FromSeconds(1000)
DEAD.deadline.FromSeconds(1600)


def test_a_redriven_task_has_as_much_time_as_it_had():
    """Its deadline is as far from now as it was from its submission."""
    again = redriven(DEAD, "c" * 26, 5000.0)
    assert (again.submitted_at.ToSeconds(), again.deadline.ToSeconds()) == (5000, 5600)


def test_a_redriven_task_keeps_the_work_and_drops_the_circumstances():
    """Prompt, model and tenant stay; reader, cache twin and idempotency key do not; the metadata tell where it came from."""
    again = redriven(DEAD, "c" * 26, 5000.0)
    assert (again.id, again.model, again.tenant, again.messages[0].content) == ("c" * 26, "tiny", "local", "hi")
    assert not again.idempotency_key + again.pool + again.joined
    assert not again.HasField("route")
    assert not again.HasField("cache_ticket")
    assert dict(again.metadata) == {"mine": "1", "redriven_from": "a" * 26}
    assert DEAD.id == "a" * 26


def test_new_ids_look_like_task_ids():
    """26 lower-case base32 characters, never the same twice."""
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 26 and i == i.lower() and i.isalnum() for i in ids)
