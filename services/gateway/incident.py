"""A bug met while serving somebody: logged with an id, told as `internal` with the same id."""

import logging
import secrets

from services.chassis.errors import ErrorCode, Problem

log = logging.getLogger(__name__)


def internal(bug: BaseException) -> Problem:
    """What the client gets to quote."""
    incident = secrets.token_hex(4)
    log.error("incident %s", incident, exc_info=bug)
    return Problem(ErrorCode.INTERNAL, f"an internal error; please quote {incident}")
