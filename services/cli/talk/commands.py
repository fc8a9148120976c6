"""`millrace send`, `chat` and `watch`."""

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

from services.cli.options import Data
from services.cli.talk.door import Way, client_of
from services.cli.talk.show import Show, about
from services.client import MillraceError


class PriorityClass(StrEnum):
    """Whose turn is first."""

    CRITICAL = "critical"
    STANDARD = "standard"
    BATCH = "batch"
    BACKGROUND = "background"


class CacheMode(StrEnum):
    """May the answer come from a cache?"""

    DEFAULT = "default"
    BYPASS = "bypass"
    ONLY = "only"


Model: TypeAlias = Annotated[str, typer.Option(help="A model route.")]
MaxTokens: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Longest answer; by default the route's.")]
Temperature: TypeAlias = Annotated[float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")]
Class: TypeAlias = Annotated[PriorityClass, typer.Option("--class", help="Priority class.")]
Cache: TypeAlias = Annotated[CacheMode, typer.Option(help="`only` refuses instead of asking the engine.")]
Transport: TypeAlias = Annotated[Way, typer.Option(help="How to talk to the gateway.")]
Url: TypeAlias = Annotated[
    str, typer.Option(envvar="MILLRACE_URL", help="Gateways, comma-separated (grpc: host:port); by default those here.")
]
Key: TypeAlias = Annotated[
    str, typer.Option(envvar="MILLRACE_KEY", help="API key; by default that of the stack here.", show_default=False)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object per event, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (send, chat, watch):
        app.command()(command)


def send(
    prompt: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    *,
    data: Data,
    model: Model = "tiny",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    priority: Class = PriorityClass.STANDARD,
    cache: Cache = CacheMode.DEFAULT,
    transport: Transport = Way.WS,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    r"""Send a prompt and print its answer as it comes. Any break in between is read over.

    \b
    millrace send "Once upon a time" --max-tokens 60
    millrace send - < prompt.txt > answer.txt
    millrace send "Once upon a time" --transport grpc --json
    """
    said = sys.stdin.read() if prompt == "-" else prompt
    options = _options(max_tokens=max_tokens, temperature=temperature, seed=seed, priority=priority, cache=cache)
    with _told(), client_of(data, url, key, transport) as client:
        show = Show(as_json=as_json)
        with _interrupted(show):
            show.all(client.stream(said, model=model, **options))
    _exit(show)


def chat(
    *,
    data: Data,
    model: Model = "tiny",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    transport: Transport = Way.WS,
    url: Url = "",
    key: Key = "",
) -> None:
    """Talk in turns; each prompt carries the turns before it. Ctrl-C cancels an answer, Ctrl-D ends the talk."""
    turns: list[dict[str, str]] = []
    options = _options(max_tokens=max_tokens, temperature=temperature)
    with _told(), client_of(data, url, key, transport) as client:
        about(f"model {model}; Ctrl-C cancels an answer, Ctrl-D ends the talk")
        while (said := _ask()) is not None:
            asked = [*turns, {"role": "user", "content": said}]
            show = Show(as_json=False)
            try:
                show.all(client.stream(asked, model=model, **options))
            except KeyboardInterrupt:
                print()
                if show.task:
                    about(f"{client.cancel(show.task)}: the turn is left out")
            except MillraceError as refused:
                about(str(refused))
            if show.whole:
                turns = [*asked, {"role": "assistant", "content": show.text}]


def watch(
    task: Annotated[str, typer.Argument(help="The id that `send` printed.")],
    *,
    data: Data,
    gen: Annotated[str, typer.Option(help="With --offset: the text that it counts in.")] = "",
    offset: Annotated[int, typer.Option(min=0, help="Bytes of the answer that are known already.")] = 0,
    transport: Transport = Way.WS,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    r"""Read the answer of a task, from its beginning or on from where a reader was.

    \b
    millrace watch 3k5vqj3sdrzcyxzw3zc2yq5m4e
    millrace watch 3k5vqj3sdrzcyxzw3zc2yq5m4e --gen 1q7 --offset 120
    """
    with _told(), client_of(data, url, key, transport) as client:
        show = Show(as_json=as_json)
        with _interrupted(show):
            show.all(client.watch(task, gen, offset))
    _exit(show)


def _options(**options: Any) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in options.items()}


def _ask() -> str | None:
    """The next line that says something, None at the end of input."""
    while True:
        try:
            said = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return None
        if said:
            return said


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A refusal is one sentence, and a reader that has seen enough (`| head`) is no error."""
    try:
        yield
    except MillraceError as refused:
        about(str(refused))
        raise typer.Exit(1) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed at exit
        raise typer.Exit(1) from None


@contextlib.contextmanager
def _interrupted(show: Show) -> Iterator[None]:
    """Ctrl-C leaves the task running, and says how to read on."""
    try:
        yield
    except KeyboardInterrupt:
        cursor = f" --gen {show.gen} --offset {show.offset}" if show.gen else ""
        about(f"\nit runs on; read on with: millrace watch {show.task}{cursor}" if show.task else "\nnot accepted yet")
        raise typer.Exit(130) from None


def _exit(show: Show) -> None:
    raise typer.Exit(0 if show.whole else 1)
