"""What browser tests are given."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from playwright.async_api import Page

OpenPage: TypeAlias = Callable[..., Awaitable[Page]]
"""`await open_page(url, **context)`: a page in a context of its own; `context` are the options of `Browser.new_context`."""
