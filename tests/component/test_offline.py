"""The offline publisher keeps Redis equal to the last good manifests."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_py
from redis.exceptions import ConnectionError as RedisGoneError

from millrace.config.v1.config_pb2 import Snapshot
from millrace_operator.offline import Publisher, main
from services.chassis.configuration import ConfigurationWatch

POOL = """
apiVersion: millrace.dev/v1alpha1
kind: WorkerPool
metadata: {{name: {name}}}
spec: {{model: {{name: tiny}}, concurrency: {{slots: {slots}}}}}
"""


class MemoryRedis:
    """The three calls that the publisher makes."""

    def __init__(self):
        self.held, self.told, self.away = {}, [], False

    def get(self, name):
        if self.away:
            raise RedisGoneError("away")
        return self.held.get(name)

    def set(self, name, value):
        self.held[name] = value

    def publish(self, channel, message):
        self.told.append((channel, message))

    @property
    def snapshot(self):
        return Snapshot.FromString(self.held["cfg:snapshot"])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pool.yaml").write_text(POOL.format(name="tiny", slots=8))
    return tmp_path


@pytest.fixture
def store():
    return MemoryRedis()


def test_manifests_are_published_once_and_told(folder, store):
    """The snapshot in the key, its version on the channel; a second look does nothing."""
    publisher = Publisher([folder], store)
    (said,) = publisher.step(1000.0)
    assert said.startswith(f"published snapshot {store.snapshot.version}: 1 pools")
    assert store.told == [("cfg", store.snapshot.version.encode())]
    assert store.snapshot.compiled_at.seconds == 1000
    assert publisher.step(1001.0) == []
    assert len(store.told) == 1


def test_a_changed_file_is_published(folder, store):
    """So is one that appears in a second folder, also if the folder itself comes later."""
    late = folder / "secrets"
    publisher = Publisher([folder, late], store)
    publisher.step(1000.0)
    (folder / "pool.yaml").write_text(POOL.format(name="tiny", slots=16))
    publisher.step(1001.0)
    assert store.snapshot.pools[0].slots == 16
    late.mkdir()
    (late / "more.yml").write_text(POOL.format(name="more", slots=1))
    publisher.step(1002.0)
    assert [pool.name for pool in store.snapshot.pools] == ["more", "tiny"]


@pytest.mark.parametrize("bad", [POOL.format(name="tiny", slots=0), "kind: [", "\xff\0", "- 1"])
def test_a_bad_manifest_is_named_and_the_last_good_snapshot_stays(folder, store, bad):
    """Once for each change, not twice a second; the repaired file is published."""
    publisher = Publisher([folder], store)
    publisher.step(1000.0)
    good = store.snapshot
    (folder / "pool.yaml").write_text(bad)
    said = publisher.step(1001.0)
    assert said[0].startswith("refused: ")
    assert "pool.yaml" in said[0]
    assert said[-1] == f"snapshot {good.version} stays"
    assert publisher.step(1002.0) == []
    assert store.snapshot == good
    (folder / "pool.yaml").write_text(POOL.format(name="tiny", slots=9))
    publisher.step(1003.0)
    assert store.snapshot.pools[0].slots == 9


@pytest.mark.parametrize("loss", ["lost", "an older one", "nonsense"])
def test_a_redis_that_lost_the_snapshot_gets_it_again(folder, store, loss):
    """Also one that came back with an older one."""
    publisher = Publisher([folder], store)
    publisher.step(1000.0)
    version = store.snapshot.version
    if loss == "lost":
        store.held.clear()
    else:
        store.held["cfg:snapshot"] = (
            Snapshot(version="older").SerializeToString() if loss == "an older one" else b"\xff"
        )
    publisher.step(1001.0)
    assert store.snapshot.version == version


def test_a_restarted_publisher_leaves_an_equal_snapshot_alone(folder, store):
    """Equal manifests, equal version: nobody is told twice."""
    Publisher([folder], store).step(1000.0)
    assert Publisher([folder], store).step(2000.0) == []
    assert store.snapshot.compiled_at.seconds == 1000


def test_a_redis_that_was_away_gets_what_changed_meanwhile(folder, store):
    """The step fails, the next one makes up for it."""
    publisher = Publisher([folder], store)
    store.away = True
    with pytest.raises(RedisGoneError):
        publisher.step(1000.0)
    store.away = False
    publisher.step(1001.0)
    assert store.snapshot.pools[0].name == "tiny"


def test_check_prints_the_snapshot_without_hashes_or_the_flaws(folder, capsys):
    """The exit status says which."""
    digest = "ab" * 32
    (folder / "tenant.yaml").write_text(
        "{apiVersion: millrace.dev/v1alpha1, kind: Tenant, metadata: {name: acme}, "
        f"spec: {{keys: [{{name: k, sha256: {digest}}}]}}}}"
    )
    assert main(["--manifests", str(folder), "--check"]) == 0
    printed = capsys.readouterr().out
    assert 'name: "acme"' in printed
    assert "sha256" not in printed
    (folder / "pool.yaml").write_text(POOL.format(name="tiny", slots=0))
    assert main(["--manifests", str(folder), "--check"]) == 1
    assert "WorkerPool/tiny spec.concurrency.slots" in capsys.readouterr().err


@pytest.mark.real
async def test_a_change_reaches_a_service(redis_url, folder):
    """The process as the stack starts it, a real Redis, and the watch that every service has."""
    url = redis_url.rsplit("/", 1)[0] + "/7"  # its own database: others publish too
    process = subprocess.Popen(
        [sys.executable, "-m", "millrace_operator.offline", "--manifests", str(folder), "--redis-url", url],
        cwd=Path.cwd(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        async with ConfigurationWatch(url, Snapshot.FromString) as watch, asyncio.timeout(20):
            first = await watch.wait()
            assert first.pools[0].slots == 8
            changed = asyncio.Event()
            watch.subscribe(lambda snapshot: changed.set() if snapshot.pools[0].slots == 12 else None)
            (folder / "new").write_text(POOL.format(name="tiny", slots=12))
            (folder / "new").replace(folder / "pool.yaml")  # whole at once, as by an editor
            await changed.wait()
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert output.count("published snapshot") == 2
    with redis_py.Redis.from_url(url) as client:
        client.delete("cfg:snapshot")
