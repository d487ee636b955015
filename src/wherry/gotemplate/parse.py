"""The template's tree. Nodes are small tuples whose first item is their kind:

("text", str) · ("print", pipe) · ("if" | "with" | "range", pipe, body, otherwise) · ("break",) · ("continue",)
A pipe is (names declared or assigned, whether declared, commands); a command is a list of operands; an operand is
(kind, value, fields, at, text) with kind dot, variable, function, literal, nil or pipe.
"""

from __future__ import annotations

from wherry.gotemplate.errors import TemplateError
from wherry.gotemplate.functions import BUILTIN
from wherry.gotemplate.lexer import Token, error, lex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLOCKS = ("if", "range", "with")
_CONSTANTS = {"true": True, "false": False}


class Parser:
    """A recursive-descent parser over the items of the lexer."""

    def __init__(self, text: str, name: str = "") -> None:
        self._text = text
        self._items = lex(text, name)
        self._name = name
        self._next = 0
        self._tokens: list[Token] = []
        self._variables = ["$"]
        self._loops = 0
        self._end = 0

    def parse(self) -> list[Any]:
        """The whole template; raises TemplateError."""
        nodes, ended = self._list(top=True)
        if ended:
            raise self._error(f"unexpected {{{{{ended}}}}}")
        return nodes

    def _error(self, message: str, at: int | None = None) -> TemplateError:
        return error(self._text, len(self._text) if at is None else at, message, self._name)

    def _list(self, *, top: bool = False) -> tuple[list[Any], str]:
        """Nodes up to {{end}} or {{else}}, and which of them it was."""
        nodes: list[Any] = []
        while self._next < len(self._items):
            item = self._items[self._next]
            self._next += 1
            if isinstance(item, Token):
                nodes.append(("text", item.text))
                continue
            self._tokens = item[::-1]
            word = item[0].text if item and item[0].kind == "word" else ""
            if word in ("end", "else"):
                self._tokens.pop()
                return nodes, word
            nodes.append(self._action(word, item))
        if not top:
            raise self._error("unexpected EOF")
        return nodes, ""

    def _action(self, word: str, item: list[Token]) -> Any:
        if not item:
            raise self._error("missing value for command", 0)
        if word in _BLOCKS:
            self._tokens.pop()
            return self._block(word)
        if word in ("break", "continue"):
            if not self._loops:
                raise self._error(f"{{{{{word}}}}} outside {{{{range}}}}", item[0].at)
            return (word,)
        if word in ("define", "template", "block"):
            raise self._error(f"{{{{{word}}}}} is not supported", item[0].at)
        return ("print", self._pipe(")"))

    def _block(self, word: str) -> Any:
        depth = len(self._variables)
        pipe = self._pipe(word)
        self._loops += word == "range"
        body, ended = self._list()
        self._loops -= word == "range"
        otherwise: list[Any] = []
        if ended == "else":
            otherwise = self._else(word)
        del self._variables[depth:]
        return (word, pipe, body, otherwise)

    def _else(self, word: str) -> list[Any]:
        """What follows {{else}}: a list up to {{end}}, or one more block without an end of its own."""
        self._skip_space()
        if self._tokens and self._tokens[-1].text in ("if", "with") and word != "range":
            return [self._block(self._tokens.pop().text)]
        otherwise, ended = self._list()
        if ended == "else":
            raise self._error("expected end; found {{else}}")
        return otherwise

    def _skip_space(self) -> None:
        while self._tokens and self._tokens[-1].kind == " ":
            self._tokens.pop()

    def _pipe(self, context: str) -> Any:
        self._skip_space()
        names, declares = self._declarations(context)
        commands: list[Any] = []
        while True:
            self._skip_space()
            commands.append(self._command())
            if not self._tokens or self._tokens[-1].kind == ")":
                break
            self._tokens.pop()  # the bar
        if declares:
            self._variables.extend(names)
        return (names, declares, commands)

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        """`$x :=`, `$x =` or `$i, $x :=` at the head of a pipe."""
        words = [token for token in reversed(self._tokens) if token.kind != " "]
        names: list[str] = []
        index = 0
        while index < len(words) and words[index].kind == "variable":
            names.append(words[index].text)
            index += 1
            if index < len(words) and words[index].kind == "," and context == "range":
                index += 1
                continue
            break
        if not names or index >= len(words) or words[index].kind not in (":=", "="):
            return [], False
        operator = words[index]
        while self._tokens.pop() is not operator:
            pass
        if operator.kind == "=":
            self._check_variable(names[0], operator.at)
        return names, operator.kind == ":="

    def _check_variable(self, name: str, at: int) -> None:
        if name not in self._variables:
            raise self._error(f'undefined variable "{name}"', at)

    def _command(self) -> list[Any]:
        operands: list[Any] = []
        while self._tokens and self._tokens[-1].kind not in ("|", ")"):
            if self._tokens[-1].kind == " ":
                self._tokens.pop()
                continue
            operands.append(self._operand())
        if not operands:
            raise self._error("missing value for command", self._tokens[-1].at if self._tokens else None)
        if operands[0][0] in ("literal", "nil") and len(operands) > 1:
            raise self._error(f"non executable command in pipeline stage {len(operands)}", operands[0][3])
        if operands[0][0] == "function":  # a failing call is named with its arguments
            kind, value, fields, at, _ = operands[0]
            operands[0] = (kind, value, fields, at, self._text[at : self._end])
        return operands

    def _operand(self) -> Any:
        token = self._tokens.pop()
        start, at, value, fields = token.at, token.at, token.value, []
        kind = self._kind(token)
        closing = token
        if kind == "dot" and value:
            fields.append(value)
        elif kind == "literal":
            value = _CONSTANTS[token.text] if token.kind == "word" else token.value
        elif kind == "variable":
            value = token.text
        elif kind == "pipe":
            value = self._pipe(")")
            if not self._tokens:
                raise self._error("unclosed left paren", at)
            closing = self._tokens.pop()
        end = closing.at + len(closing.text)
        chained = False
        while self._tokens and self._tokens[-1].kind == "field" and self._tokens[-1].value:
            if kind in ("literal", "nil"):
                raise self._error(f"unexpected . after term {token.text!r}", at)
            last = self._tokens.pop()
            if not chained:
                at, chained = last.at, True  # Go names the place where a chain goes on
            fields.append(last.value)
            end = last.at + len(last.text)
        self._end = end
        return (kind, value, fields, at, self._text[start:end])

    def _kind(self, token: Token) -> str:
        if token.kind == "field":
            return "dot"
        if token.kind == "variable":
            self._check_variable(token.text, token.at)
            return "variable"
        if token.kind in ("string", "number"):
            return "literal"
        if token.kind == "(":
            return "pipe"
        if token.kind == "word":
            if token.text in _CONSTANTS:
                return "literal"
            if token.text == "nil":
                return "nil"
            if token.text in BUILTIN:
                return "function"
            raise self._error(f'function "{token.text}" not defined', token.at)
        raise self._error(f'unexpected "{token.text}" in operand', token.at)
