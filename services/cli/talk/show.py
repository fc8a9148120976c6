"""Events on a terminal: the answer goes to standard output, everything about it to standard error."""

import contextlib
import sys
import time
from collections.abc import Generator

import msgspec

from services.client import Ack, Delta, Done, Event, Restarted, Status


class Show:
    """Prints the events of one answer as they come, and remembers where it stands."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._started = time.monotonic()
        self._first = 0.0
        self.task = ""
        self.gen = ""
        self.offset = 0
        self.text = ""
        self.done: Done | None = None

    def all(self, events: Generator[Event, None, None]) -> None:
        """Print them to the end."""
        with contextlib.closing(events):
            for event in events:
                self._take(event)
                if self._as_json:
                    print(msgspec.json.encode(event).decode(), flush=True)
                else:
                    self._print(event)

    @property
    def whole(self) -> bool:
        """Did the answer come to a good end?"""
        return self.done is not None and self.done.outcome == "completed"

    def _take(self, event: Event) -> None:
        self.task = event.task
        match event:
            case Delta(gen=gen, offset=offset, text=text):
                self._first = self._first or time.monotonic()
                self.gen, self.offset, self.text = gen, offset, self.text + text
            case Restarted(gen=gen):
                self.gen, self.offset, self.text = gen, 0, ""
            case Done():
                self.done = event

    def _print(self, event: Event) -> None:
        match event:
            case Ack(task=task, cache=cache):
                source = f", from the cache ({cache})" if cache else ""
                about(f"accepted in {(time.monotonic() - self._started) * 1000:.0f} ms: {task}{source}")
            case Status(state=state, position=position, eta_s=eta_s) if not self.text:
                place = f", {position} in line" if position else ""
                about(f"{state}{place}" + (f", about {eta_s:.1f} s to go" if eta_s else ""))
            case Delta(text=text):
                print(text, end="", flush=True)
            case Restarted():
                print()
                about("the text so far was lost with the process that had it; the answer begins anew")
            case Done():
                print()
                about(self._account(event))

    def _account(self, done: Done) -> str:
        """`completed: 118 tokens, first after 85 ms, 51.2 tokens/s, 2 attempts`."""
        parts = [f"{done.usage.completion_tokens} tokens"]
        if self._first:
            parts.append(f"first after {(self._first - self._started) * 1000:.0f} ms")
        seconds = done.timings.total_s - done.timings.ttft_s  # the gateway's: few frames may carry many tokens
        if seconds > 0 and done.usage.completion_tokens > 1:
            parts.append(f"{(done.usage.completion_tokens - 1) / seconds:.1f} tokens/s")
        if done.cache:
            parts.append(f"cache {done.cache}")
        if done.timings.attempts > 1:
            parts.append(f"{done.timings.attempts} attempts")
        why = f" ({done.error.code}: {done.error.message})" if done.error else ""
        return f"{done.outcome}{why}: {', '.join(parts)}"


def about(words: str) -> None:
    """A line about an answer, dimmed on a terminal."""
    dim, plain = ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{dim}{words}{plain}", file=sys.stderr, flush=True)
