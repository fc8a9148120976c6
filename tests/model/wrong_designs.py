"""Designs that are wrong. The schedules must catch each of them."""

from dataclasses import replace
from typing import Any, Final

from services.tasklog.adapters.memory_token_log import MemoryTokenLog
from services.tasklog.core.beginning import begin_from
from services.tasklog.core.entries import Begin, Fenced, Fresh, Header
from services.tasklog.core.reading import Cursor, Text
from tests.model.stepping import step

BAD: Final = {
    "read_then_fence": "an attempt reads where the text ends before it writes its header",
    "notify_before_log": "a worker sends live frames before the append",
    "continue_across_runs": "a text is continued although Redis may have forgotten its tail: no reader is told `restarted`",
    "write_again_unasked": "a worker logs its text again although another attempt came between",
    "ignore_the_fence": "a worker goes on although its append was refused",
    "blind_reader": "a gateway forwards every frame and never looks for gaps",
}


class ReadsThenFences(MemoryTokenLog):
    async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
        below = await self.read(task)
        await step()
        fenced = await super().begin(task, header, keep_s) == Fenced()
        return Fenced() if fenced else begin_from(below, header.run_id)


class ContinuesAcrossRuns(MemoryTokenLog):
    async def begin(self, task: str, header: Header, keep_s: float) -> Begin | Fenced:
        begun = await super().begin(task, header, keep_s)
        if begun != Fresh():
            return begun
        entries = [entry for entry in await self.read(task) if entry.attempt < header.attempt]
        trusted = [replace(e, run_id=header.run_id) if isinstance(e, Header) else e for e in entries]
        return begin_from(trusted, header.run_id)


class BlindCursor(Cursor):
    __slots__ = ()

    def take_frame(self, *frame: Any) -> Any:
        _, gen, start, end, text, outcome = frame
        if outcome is None and start > self.offset:
            self.gen, self.offset = gen, end
            return [Text(gen, end, text)]
        return super().take_frame(*frame)
