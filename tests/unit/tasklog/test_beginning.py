"""Where a new attempt begins."""

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.beginning import begin_from
from services.tasklog.core.entries import Continue, Delta, Ended, Fresh, Header, Terminal

A, B = "run A", "run B"
END = Outcome(finish_reason="stop")


def header(attempt, run_id):
    return Header(attempt, "worker", f"nonce {attempt}", run_id)


def test_an_empty_log_begins_a_text():
    """Also one in which attempts began and wrote nothing."""
    assert begin_from([], A) == Fresh()
    assert begin_from([header(1, A), header(2, A)], A) == Fresh()


def test_a_text_of_this_run_is_continued_where_the_last_delta_ends():
    """Headers without text in between change nothing; offsets count bytes."""
    below = [header(1, A), Delta(1, 1, 0, 3, "aü"), header(2, A), Delta(2, 1, 3, 4, "b"), header(3, A)]
    begun = begin_from(below, A)
    assert begun == Continue(1, "aüb")
    assert begun.offset == 4


def test_a_text_whose_tail_redis_forgot_is_begun_anew_and_said_so_never_spliced():
    """The last delta's attempt wrote under another run: what that run forgot, readers may hold."""
    below = [header(1, A), Delta(1, 1, 0, 2, "ab")]
    assert begin_from(below, B) == Fresh()
    assert begin_from([*below, header(2, B)], B) == Fresh(), "a header of this run without text makes nothing certain"


def test_a_text_logged_again_as_a_whole_under_this_run_is_continued():
    """Its holder wrote it again: the newest delta counts, and overlaps are sliced."""
    below = [header(1, A), Delta(1, 1, 0, 2, "ab"), header(2, B), Delta(2, 1, 0, 3, "abc"), Delta(2, 1, 3, 4, "d")]
    assert begin_from(below, B) == Continue(1, "abcd")


def test_a_delta_whose_header_is_missing_is_not_trusted():
    """Nobody knows under which run it was written."""
    assert begin_from([Delta(1, 1, 0, 2, "ab")], "") == Fresh()


def test_an_end_is_found_whatever_run_it_was_written_in():
    """Its text is that of its own gen."""
    end = Terminal(4, 3, 2, END)
    below = [
        header(1, A),
        Delta(1, 1, 0, 2, "xx"),
        header(3, B),
        Delta(3, 3, 0, 2, "ab"),
        header(4, B),
        end,
        header(5, A),
    ]
    assert begin_from(below, A) == Ended(end, "ab")
