"""The pipelined Redis connection against a real server that dies, forgets and comes back."""

import asyncio
import subprocess

import hiredis
import pytest

from services.chassis.resp import RedisAwayError, Resp, RunChangedError
from tests.support.components import free_port
from tests.support.waiting import eventually


@pytest.fixture
def server(tmp_path):
    """A Redis that the test may kill: `server()` starts it, returns the process."""
    port = free_port()
    started = []

    def start(*more):
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
        started.append(subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL))
        return started[-1]

    start.url = f"redis://127.0.0.1:{port}/0"
    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_replies_match_commands_and_errors_are_values(redis_url):
    """One reply per command, in order; an error reply does not hide the others."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        set_, wrong, get = await redis.pipe(("SET", "resp:a", 1), ("HGET", "resp:a", "f"), ("GET", "resp:a"))
        assert (set_, get) == (b"OK", b"1")
        assert isinstance(wrong, hiredis.ReplyError)
        with pytest.raises(hiredis.ReplyError):
            await redis.call("HGET", "resp:a", "f")


async def test_concurrent_pipes_keep_their_own_replies(redis_url):
    """Many pipes share the connection."""
    async with Resp(redis_url) as redis:
        await redis.wait_connected(5)
        echoed = await asyncio.gather(*[redis.pipe(("ECHO", i), ("ECHO", -i)) for i in range(200)])
        assert echoed == [[b"%d" % i, b"%d" % -i] for i in range(200)]


async def test_without_a_server_calls_fail_at_once(server):
    """Waiting is the caller's decision."""
    async with Resp(server.url) as redis:
        with pytest.raises(RedisAwayError):
            await redis.call("PING")
        with pytest.raises(RedisAwayError):
            await redis.wait_connected(0.05)


async def test_a_server_that_still_reads_its_file_is_away(server):
    """It answers INFO meanwhile, and refuses what the services need."""
    process = server("--appendonly", "yes", "--appendfsync", "no")
    async with Resp(server.url) as redis:
        await redis.wait_connected(5)
        await redis.pipe(*[("SET", f"resp:{n}", n) for n in range(8000)])
        process.kill()
        process.wait()
        await eventually(lambda: not redis.connected)
        server("--appendonly", "yes", "--key-load-delay", "200")
        await redis.wait_connected(20)
        assert await redis.call("GET", "resp:7999") == b"7999"


async def test_a_killed_server_is_away_and_its_successor_another_run(server):
    """Calls under way fail, the connection comes back, and a writer of the old run is refused before it writes."""
    process = server()
    async with Resp(server.url) as redis:
        await redis.wait_connected(5)
        first = redis.run_id
        assert await redis.call("SET", "k", "v", run_id=first) == b"OK"
        blocked = asyncio.create_task(redis.call("BLPOP", "nothing", 0))
        await asyncio.sleep(0.05)
        process.kill()
        with pytest.raises(RedisAwayError):
            await blocked
        server()
        await redis.wait_connected(5)
        assert redis.run_id != first
        with pytest.raises(RunChangedError):
            await redis.call("SET", "k", "w", run_id=first)
        assert await redis.call("GET", "k") is None


async def test_a_server_that_hangs_is_cut(server):
    """No reply within the timeout is treated as a lost connection."""
    process = server()
    async with Resp(server.url, timeout_s=0.2) as redis:
        await redis.wait_connected(5)
        process.send_signal(subprocess.signal.SIGSTOP)
        with pytest.raises(RedisAwayError):
            await redis.call("PING")
        process.send_signal(subprocess.signal.SIGCONT)
        await redis.wait_connected(5)
        assert await redis.call("PING") == b"PONG"
