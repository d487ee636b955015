"""Go's text/template, as far as --format uses it: parse once, execute for every object."""

from __future__ import annotations

from wherry.gotemplate.errors import TemplateError
from wherry.gotemplate.evaluate import Execution, Record
from wherry.gotemplate.parse import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["Record", "Template", "TemplateError"]


class Template:
    """A parsed template; raises TemplateError when the text is none."""

    def __init__(self, text: str, name: str = "") -> None:
        self._nodes, self._name = Parser(text, name).parse(), name

    def execute(self, data: Any, functions: Mapping[str, Callable[..., Any]] | None = None) -> str:
        """The template's output for `data`; `functions` override the built-in ones. Raises TemplateError."""
        return Execution(data, functions or {}, self._name).run(self._nodes)
