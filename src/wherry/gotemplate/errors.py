"""The error of templates, in Go's words."""

from __future__ import annotations


class TemplateError(Exception):
    """`parsing` says that the text was no template, rather than that it did not fit the data."""

    def __init__(self, message: str, *, parsing: bool = False) -> None:
        super().__init__(message)
        self.parsing = parsing
