"""Where a new attempt begins.

The decision is made from what lies below the attempt's own header, so nothing that it read can change any more.
"""

from collections.abc import Sequence

from services.tasklog.core.entries import Begin, Continue, Delta, Ended, Entry, Fresh, Header, Terminal
from services.tasklog.core.reading import assemble


def begin_from(below: Sequence[Entry], run_id: str) -> Begin:
    """Decide from the entries below a new header, oldest first, and the Redis run id it was written under.

    A text is continued only if its last delta was logged under the same run: what another run forgot of it, readers may
    hold, and a continuation would be spliced into their text without a word. Otherwise a new text begins, and they are told.

    >>> begin_from([Header(1, "w", "n", "run A"), Delta(1, 1, 0, 2, "Hi")], "run A")
    Continue(gen=1, text='Hi')
    >>> begin_from([Header(1, "w", "n", "run A"), Delta(1, 1, 0, 2, "Hi")], "run B")
    Fresh()
    """
    runs: dict[int, str] = {}
    last: Delta | None = None
    for entry in below:
        match entry:
            case Header():
                runs[entry.attempt] = entry.run_id
            case Delta():
                last = entry
            case Terminal():
                return Ended(entry, assemble(below, entry.gen))
    if last is None or runs.get(last.attempt) != run_id:
        return Fresh()
    return Continue(last.gen, assemble(below, last.gen))
