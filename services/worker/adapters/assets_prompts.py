"""Prompts of a model whose assets lie in a folder, as `deploy/triton/model_repository/<model>` has them.

`chat_template.jinja`, `tokenizer.json`, and `model.json` with the `context` and the `special_tokens`.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from millrace.task.v1.task_pb2 import Message
from services.worker.core.chat_prompt import ChatTemplate, SpecialTokens


class _Facts(msgspec.Struct):
    """What the worker reads of `model.json`."""

    context: int
    special_tokens: list[str]


class AssetsPrompts:
    """A model's chat template and tokenizer. Raises OSError or msgspec.ValidationError when the folder is not complete."""

    def __init__(self, folder: Path) -> None:
        facts = msgspec.json.decode((folder / "model.json").read_bytes(), type=_Facts)
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        self._template = ChatTemplate(source, SpecialTokens(facts.special_tokens))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._context = facts.context

    @property
    def context(self) -> int:
        """Tokens the model can hold."""
        return self._context

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, the answer's turn begun. Raises ValueError when the template refuses the messages."""
        return self._template.render([(message.role, message.content) for message in messages])

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text).ids)
