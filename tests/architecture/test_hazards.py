"""What could lose, double or splice text, what people see when something is down: each has its test."""

import ast
import re

import pytest

from services.cli.stack.software import ROOT

HAZARDS = (
    "a takeover fences before it reads the end offset",
    "a route attached before the task starts is not lost",
    "a lost live frame with no successor is repaired by the watchdog",
    "a token that overtakes its acknowledgment arrives after it",
    "a zombie worker's appends are refused and never shown",
    "a worker starts although one gateway is dead (it connects in the background)",
    "a Redis restart that forgets the last second loses no finished task (commit horizon)",
    "a second reader, and a late one, see the same bytes",
    "a reconnect storm of 10,000 clients is served within 5 s and starves no running stream",
    "a slow reader costs bounded memory and gets every byte",
    "a Redis failover that lost the tail leaves no hole: the worker logs the text again",
    "a poisoned task stops after its attempts and blocks nobody",
    "an owner whose lease Redis handed back takes a new epoch",
    "a text whose tail Redis forgot is begun anew and said so, never spliced",
    "two dispatchers that both believe they own a pool never show one task twice to the client",
    "a worker that dies between the terminal entry and the end of the end routine leaves usage and conversation complete, once",
    "a finished task behind an unfinished one does not run again after a takeover",
    "a produce that timed out but reached the log runs once, and a retry finds it",
    "a client sees no byte of a fenced attempt beyond the point where the next one continued",
)


def plain(sentence: str) -> str:
    """A sentence as a name.

    >>> plain("A worker's 10,000 tokens (or more)")
    'a_workers_10_000_tokens_or_more'
    """
    return re.sub(r"[^a-z0-9]+", "_", sentence.lower().replace("'", "")).strip("_")


@pytest.fixture(scope="module")
def claims() -> set[str]:
    """What the tests claim, by name or by the first line of the docstring."""
    return {
        claim
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for claim in (node.name.removeprefix("test_"), plain((ast.get_docstring(node) or "").partition("\n")[0]))
    }


@pytest.mark.parametrize("hazard", HAZARDS)
def test_every_hazard_has_a_test_of_its_name(claims: set[str], hazard: str) -> None:
    """Its words are the name of a test, or the first line of its docstring."""
    assert plain(hazard) in claims


def rows() -> list[tuple[str, str]]:
    """What is down, and what people see then, as README.md says it."""
    table = (ROOT / "README.md").read_text().partition("## When something is down")[2].partition("\n[")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line]
    return [(down, seen) for down, seen in cells[2:]]


@pytest.mark.parametrize(("down", "seen"), rows())
def test_every_row_of_the_degradation_table_has_a_test(claims: set[str], down: str, seen: str) -> None:
    """What people see when something is down is the first line of a test's docstring, word for word."""
    assert plain(seen) in claims, down
