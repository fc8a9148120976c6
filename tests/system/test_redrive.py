"""A dead task gets a second life."""

import time

import httpx
from confluent_kafka import Producer
from typer.testing import CliRunner

from millrace.task.v1.task_pb2 import PRIORITY_CLASS_STANDARD, DeadTask, Message, Sampling, Task
from services.cli.dead_letters import new_id
from services.cli.main import app
from services.pools.core.lanes import DEAD_TOPIC
from tests.support.waiting import wait_until


def test_a_redriven_task_runs_to_its_end_under_a_new_id(stack):
    """`millrace dead redrive` hands the work to the router; its tenant can read the answer under the id it prints."""
    now = time.time()
    dead = DeadTask(
        history=["attempt 1: the engine died"],
        task=Task(
            id=new_id(), tenant="local", model="sim", pool="sim", priority_class=PRIORITY_CLASS_STANDARD,
            messages=[Message(role="user", content="again")], sampling=Sampling(max_tokens=8, top_p=1),
        ),
    )  # fmt: skip
    dead.task.submitted_at.FromSeconds(int(now) - 5000)
    dead.task.deadline.FromSeconds(int(now) - 4400)
    dead.task.retention.FromSeconds(300)
    producer = Producer({"bootstrap.servers": stack.status.addresses("kafka", "port")[0], "log_level": 0})
    producer.produce(DEAD_TOPIC, dead.SerializeToString())
    assert producer.flush(20) == 0

    said = CliRunner().invoke(app, ["dead", "redrive", dead.task.id, "--data", str(stack.home.folder)])
    assert not said.exception, said.exception
    again = said.output.split()[2]
    assert "in pool sim" in said.output

    url, headers = f"http://{stack.gateways[0].http}/v1/tasks/{again}", {"Authorization": f"Bearer {stack.key}"}
    wait_until(lambda: httpx.get(url, headers=headers).json().get("state") == "completed", within_s=30, every_s=0.1)
    assert httpx.get(url, headers=headers).json()["text"]
    assert httpx.get(url.replace(again, dead.task.id), headers=headers).status_code == 404
