"""What an attempt does at its start, and when the engine is silent."""

import math

import pytest

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Begin, Continue, Ended, Fenced, Fresh, Terminal
from services.worker.core.attempt_plan import (
    EndAgain,
    Expired,
    Generate,
    LogAgain,
    Patience,
    Stalled,
    StartPlan,
    Stop,
    overdue,
    plan_start,
)

TERMINAL = Terminal(3, 3, 4, Outcome(finish_reason="stop"))
PATIENCE = Patience(first_token_s=30.0, stall_s=5.0)


@pytest.mark.parametrize(
    ("below", "holds_text", "plan"),
    [
        (Fenced(), False, Stop()),
        (Fenced(), True, Stop()),
        (Ended(TERMINAL, "done"), False, EndAgain(TERMINAL, "done")),
        (Ended(TERMINAL, "done"), True, EndAgain(TERMINAL, "done")),
        (Continue(3, "so far"), False, Generate(3, "so far")),
        (Continue(3, "so f"), True, LogAgain()),
        (Fresh(), False, Generate(9, "")),
        (Fresh(), True, LogAgain()),
    ],
)
def test_an_end_in_the_log_wins_then_the_held_text_then_the_logged_one(
    below: Begin | Fenced, holds_text: bool, plan: StartPlan
) -> None:
    """The order of the cases is the protocol's."""
    assert plan_start(9, below, holds_text=holds_text) == plan


@pytest.mark.parametrize(
    ("left_s", "silent_s", "began", "verdict"),
    [
        (10.0, 4.9, True, None),
        (10.0, 5.1, True, Stalled("the engine stalled: no further token for 5.1 s")),
        (10.0, 5.1, False, None),
        (math.inf, 30.1, False, Stalled("the engine stalled: no first token for 30.1 s")),
        (0.0, 0.0, True, Expired()),
        (0.0, 99.0, True, Expired()),
    ],
)
def test_silence_and_deadlines_are_judged(
    left_s: float, silent_s: float, began: bool, verdict: Expired | Stalled | None
) -> None:
    """Before the first token patience is longer; a deadline that passed wins over silence."""
    assert overdue(left_s, silent_s, began=began, patience=PATIENCE) == verdict
