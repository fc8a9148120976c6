"""Chat messages to the text that a model was trained on.

The template is the model's own (Jinja, as model repositories publish it) and runs in a sandbox. The model's special
tokens mark who speaks; in a content they would forge turns, so they are removed from it first.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

NESTED = 4  # marks inside marks that are taken apart one by one


class SpecialTokens:
    """The strings that a model's tokenizer reads as marks, not as text."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # Longest first, so that of two marks that begin alike the whole one goes.
        spellings = sorted(filter(None, tokens), key=len, reverse=True)
        self._mark = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
        self._beginning = re.compile("|".join(re.escape(spelling[0]) for spelling in spellings) or r"(?!)")

    def remove(self, text: str) -> str:
        """The text without any mark, also none that a removal puts together.

        Whoever nests marks deeply means to forge, and would have us search the text again for each level: from such a
        text every character goes that a mark can begin with.

        >>> SpecialTokens(["<|end|>"]).remove("a<|e<|end|>nd|>b")
        'ab'
        """
        for _ in range(NESTED):
            if (cleaned := self._mark.sub("", text)) == text:
                return text
            text = cleaned
        return self._beginning.sub("", text) if self._mark.search(text) else text


class ChatTemplate:
    """A model's template, compiled. `source` is Jinja text."""

    def __init__(self, source: str, special_tokens: SpecialTokens) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse  # the name that templates use
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """The prompt for (role, content) pairs, the answer's turn begun.

        Raises ValueError when the template refuses the messages.
        """
        clean = [{"role": role, "content": self._special_tokens.remove(content)} for role, content in messages]
        try:
            return self._template.render(messages=clean, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(str(error)) from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
