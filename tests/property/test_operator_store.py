"""The store against an API server whose watch tells late while lists are read: it never goes back, and ends at what is there."""

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_operator.store import Store

KIND = "Tenant"
NAMES = ("a", "b", "c")


class Server:
    """Objects with resourceVersions, and the events that a watch has still to tell."""

    def __init__(self):
        self.there, self.events, self._versions = {}, [], count(8)  # texts of them do not compare as the numbers do

    def write(self, name):
        """Make or change it."""
        body = self._body(name)
        self.events.append(("MODIFIED" if name in self.there else "ADDED", body))
        self.there[name] = body

    def delete(self, name):
        """If it is there. The event has a version of its own."""
        if self.there.pop(name, None):
            self.events.append(("DELETED", self._body(name)))

    def _body(self, name):
        metadata = {"namespace": "default", "name": name, "resourceVersion": str(next(self._versions))}
        return {"kind": KIND, "metadata": metadata}


def deliver(server, store, number=10**6):
    """So many events of the watch, in their order."""
    for what, body in server.events[:number]:
        if what == "DELETED":
            store.drop(KIND, body)
        else:
            store.put(KIND, body)
    del server.events[:number]


def happen(server, store, what, which):
    """Of a story's words those of the server and its watch; the others are about lists."""
    match what:
        case "write":
            server.write(which)
        case "delete":
            server.delete(which)
        case "deliver":
            deliver(server, store, which)


def versions(store):
    return {key[1]: int(body["metadata"]["resourceVersion"]) for key, body in store.all(KIND).items()}


def there(server):
    return {name: int(body["metadata"]["resourceVersion"]) for name, body in server.there.items()}


happenings = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("write", "write", "delete")), st.sampled_from(NAMES)),
        st.tuples(st.just("deliver"), st.integers(1, 4)),
        st.tuples(st.sampled_from(("ask", "answer", "take")), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=3000)
@given(happenings)
def test_whatever_comes_between_the_store_ends_at_what_is_there(story):
    """A list is asked for, answered and taken at any instants between changes and their events; each event comes, late."""
    server, store, listed, asked = Server(), Store((KIND,)), None, False
    before: dict[str, int] = {}
    for what, which in story:
        happen(server, store, what, which)
        match what:
            case "ask":
                store.begin(KIND)
                listed, asked = None, True
            case "answer" if asked:
                listed, asked = list(server.there.values()), False
            case "take" if listed is not None:
                store.replace(KIND, listed)
                listed = None
        now = versions(store)
        assert all(now[name] >= before[name] for name in now.keys() & before.keys()), "it went back"
        before = now
    deliver(server, store)
    assert versions(store) == there(server)


@settings(max_examples=1000)
@given(happenings)
def test_a_list_makes_up_for_all_that_a_watch_did_not_tell(story):
    """Whatever was lost before it was asked for."""
    server, store = Server(), Store((KIND,))
    for what, which in story:
        happen(server, store, what, which)
        if what == "ask":
            server.events.clear()
    server.events.clear()
    store.begin(KIND)
    store.replace(KIND, list(server.there.values()))
    assert versions(store) == there(server)


def test_a_server_that_was_restored_from_a_backup_is_believed():
    """Its versions are lower than those that are known. A list says what is there, and the watch goes on from it."""
    store, body = Store((KIND,)), {"metadata": {"name": "a", "resourceVersion": "900"}}
    store.put(KIND, body)
    store.begin(KIND)
    restored = {"metadata": {"name": "a", "resourceVersion": "30"}}
    store.replace(KIND, [restored])
    changed = {"metadata": {"name": "a", "resourceVersion": "31"}}
    store.put(KIND, changed)
    assert store.get(KIND, ("", "a")) is changed


def test_versions_that_are_no_numbers_are_compared_for_equality_alone():
    """Kubernetes promises no more to those who do not know that they are numbers."""
    store, told = Store((KIND,)), []
    store.subscribe((KIND,), lambda *what: told.append(what))
    for version in ("b", "b", "a"):
        store.put(KIND, {"metadata": {"name": "a", "resourceVersion": version}})
    assert len(told) == 2
    store.drop(KIND, {"metadata": {"name": "a", "resourceVersion": "0"}})
    assert not store.all(KIND)
