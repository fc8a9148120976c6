"""`millrace topics` and `millrace dead` on a real Kafka of their own: they make and read topics by their real names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, ResourceType  # type: ignore[attr-defined]
from typer.testing import CliRunner

from millrace.task.v1.task_pb2 import DeadTask, Message, Task
from services.cli import dead_letters
from services.cli.main import app
from services.cli.stack.handle import StackError
from services.pools.core.lanes import DEAD_TOPIC, all_topics, group_of, topics_of
from services.pools.topics import Offsets, begin
from tests.support.components import component

POOLS = ["sim", "tiny"]
LANE = topics_of("tiny")[1]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker with the topics of the local manifests."""
    with component("kafka", tmp_path_factory.mktemp("kafka")) as ports:
        address = f"127.0.0.1:{ports['port']}"
        assert "10 topics created, 0 were there" in millrace("topics", "apply", "--bootstrap", address)
        yield address


def millrace(*arguments: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, [*arguments, "--data", "/nonexistent"])
    assert isinstance(done.exception, StackError) == fails, done.exception
    return done.output + str(done.exception or "")


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def committed(bootstrap: str, pool: str) -> dict[str, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_of(pool)})
    try:
        places = [TopicPartition(topic, number) for topic in topics_of(pool) for number in range(3)]
        return {f"{p.topic}-{p.partition}": p.offset for p in consumer.committed(places, timeout=20)}
    finally:
        consumer.close()


def forget(bootstrap: str, topic: str, partition: int, offset: int) -> None:
    """Commit an offset that cannot be: beyond the end, as after a log that was made anew."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group_of("tiny")})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()


def test_topics_are_complete_and_a_second_time_changes_nothing(bootstrap):
    """Every lane of every pool, usage and dead letters are there with their partitions, and Kafka's own for offsets."""
    assert "0 topics created, 10 were there" in millrace("topics", "apply", "--bootstrap", bootstrap)
    listed = {
        line.split()[0]: line.split()[1] for line in millrace("topics", "list", "--bootstrap", bootstrap).splitlines()
    }
    assert listed == dict.fromkeys([*all_topics(POOLS), "__consumer_offsets"], "3")


def test_a_topic_says_itself_how_many_copies_an_acknowledgment_means(bootstrap):
    """Whatever the broker's default is: one of a topic with one copy, lanes like usage and dead letters."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [ConfigResource(ResourceType.TOPIC, name) for name in all_topics(POOLS)]
    for topic, settings in admin.describe_configs(topics).items():
        setting = settings.result(20)["min.insync.replicas"]
        assert (setting.value, ConfigSource(setting.source)) == ("1", ConfigSource.DYNAMIC_TOPIC_CONFIG), topic


def test_a_dispatcher_finds_a_committed_offset_in_every_new_lane(bootstrap):
    """The first commit is made with the topics, so a missing one later means that it was lost."""
    assert set(committed(bootstrap, "sim").values()) == {0}


def test_a_lost_offset_is_never_guessed(tmp_path, bootstrap):
    """A lane with records and no possible offset is named and left alone until somebody says where to begin."""
    produce(bootstrap, LANE, b"one")
    forget(bootstrap, LANE, 0, 1000)
    said = millrace("topics", "apply", "--bootstrap", bootstrap, fails=True)
    assert f"no committed offset, but records, in: {LANE}-0." in said
    assert committed(bootstrap, "tiny")[f"{LANE}-0"] == 1000
    assert begin(bootstrap, "tiny", [], Offsets.END) == []
    assert committed(bootstrap, "tiny")[f"{LANE}-0"] == 1
    forget(bootstrap, LANE, 0, 1000)
    assert begin(bootstrap, "tiny", [], Offsets.BEGINNING) == []
    assert committed(bootstrap, "tiny")[f"{LANE}-0"] == 0


def test_dead_tasks_are_listed_and_shown(bootstrap):
    """A list has one line for each, the oldest first; `show` has the history and the whole record."""
    for number, second in ((1, 200), (2, 100)):
        dead = DeadTask(
            task=Task(
                id=str(number) * 26, tenant="acme", pool="tiny", messages=[Message(role="user", content="grüß dich")]
            ),
            history=["attempt 1: the engine died", f"attempt 2: again, {number}"],
        )
        dead.buried_at.FromSeconds(second)
        produce(bootstrap, DEAD_TOPIC, dead.SerializeToString())
    lines = millrace("dead", "list", "--bootstrap", bootstrap).splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["2" * 26, "1" * 26]
    assert "acme/tiny  attempt 2: again, 2" in lines[0]
    assert lines[2] == "2 dead tasks"
    shown = millrace("dead", "show", "1" * 26, "--bootstrap", bootstrap)
    assert "attempt 1: the engine died" in shown
    assert "grüß dich" in shown
    assert "no dead task is called nix" in millrace("dead", "show", "nix", "--bootstrap", bootstrap, fails=True)
    assert dead_letters.find(bootstrap, "2" * 26).buried_at.ToSeconds() == 100


def test_manifests_that_are_wrong_are_named(tmp_path: Path, bootstrap):
    """Topics come from the WorkerPools; a folder that does not compile changes nothing and says why."""
    (tmp_path / "pool.yaml").write_text(
        "apiVersion: millrace.dev/v1alpha1\nkind: WorkerPool\nmetadata: {name: x}\nspec: 1\n"
    )
    said = millrace("topics", "apply", "--bootstrap", bootstrap, "--manifests", str(tmp_path), fails=True)
    assert "WorkerPool/x" in said
