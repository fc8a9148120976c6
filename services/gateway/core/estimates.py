"""Where does a new task stand? An estimate from the pool's last signal."""

from dataclasses import dataclass

from millrace.dispatch.v1.dispatch_pb2 import PoolSignal

TOKEN_BYTES = 4  # of prompt text, on average; settled by the worker's tokenizer
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Position (1 = next) and seconds until it starts; None: nobody knows."""

    position: int | None = None
    eta_s: float | None = None


def place_of(signal: PoolSignal | None, age_s: float) -> Place:
    """The place of a task that comes now.

    >>> place_of(PoolSignal(workers=1, slots=4, busy_slots=4, waiting=2, wait_s=1.54), 0.1)
    Place(position=3, eta_s=1.5)
    >>> place_of(PoolSignal(workers=1, slots=4, busy_slots=1), 0.1), place_of(None, 0)
    (Place(position=1, eta_s=0.0), Place(position=None, eta_s=None))
    """
    if signal is None or age_s > FRESH_S or not signal.slots:
        return Place()
    if signal.busy_slots < signal.slots and not signal.waiting:
        return Place(1, 0.0)
    return Place(signal.waiting + 1, round(signal.wait_s, 1))


def prompt_tokens(content_bytes: int) -> int:
    """Tokens of a prompt, estimated without a tokenizer.

    >>> prompt_tokens(10)
    3
    """
    return -(-content_bytes // TOKEN_BYTES)
