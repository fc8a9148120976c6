"""The canonical form of a request: what two requests must share, byte for byte, to have the same answer."""

import msgspec

from services.gateway.core.submission import Submission


def canonical_request(submission: Submission, max_tokens: int) -> bytes:
    """Messages and sampling as MessagePack: typed and length-prefixed, so that no two requests share one form.

    Nothing is normalised: any difference may change the answer. `max_tokens` is the one that holds, the route's default included.
    """
    s = submission
    turns = [(m.role, m.content) for m in s.messages]
    return msgspec.msgpack.encode((turns, max_tokens, s.temperature, s.top_p, s.seed, s.stop))
