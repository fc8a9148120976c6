"""The folder that a stack lives in."""

import base64
import re
import stat

import yaml

from services.cli.stack import processes
from services.cli.stack.home import Home


def test_one_supervisor_holds_a_folder(tmp_path):
    """A second one is refused until the first lets go, and everybody can see whether it is held."""
    first, second = Home(tmp_path), Home(tmp_path)
    assert not first.is_held()
    assert first.hold()
    assert not second.hold()
    assert second.is_held()
    first.let_go()
    assert not second.is_held()
    assert second.hold()
    second.let_go()


def test_secrets_are_made_once_and_are_private(tmp_path):
    """The local key has the form of an API key, outlives a restart, and nobody else may read it."""
    home = Home(tmp_path)
    key = home.prepare()
    assert re.fullmatch("mr_[a-z2-7]{32}", key)
    assert home.prepare() == key
    secrets = [*home.secrets.iterdir(), *home.manifests.iterdir()]
    assert len(secrets) == 3
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets)
    assert len(base64.b64decode((home.secrets / "task-id").read_bytes())) == 32


def test_the_publisher_finds_the_key_in_a_secret(tmp_path):
    """The manifest beside the committed ones is a Secret named `local` with the key."""
    home = Home(tmp_path)
    key = home.prepare()
    secret = yaml.safe_load((home.manifests / "local-key.yaml").read_text())
    assert (secret["kind"], secret["metadata"]["name"], secret["stringData"]) == ("Secret", "local", {"key": key})


def test_a_log_that_is_too_long_begins_anew(tmp_path):
    """Its text moves to `.1`, and a process that appends goes on at the new end."""
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as output:
        output.write(b"old\n" * 100)
        processes.shorten(log, limit=1000)
        assert log.stat().st_size == 400
        processes.shorten(log, limit=100)
        output.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"old\n" * 100


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    """And nothing where there is no log."""
    log = tmp_path / "x.log"
    assert not processes.tail(log)
    log.write_text("".join(f"{n}\n" for n in range(10_000)))
    assert processes.tail(log, 2) == "9998\n9999"
