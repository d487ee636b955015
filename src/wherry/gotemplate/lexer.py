"""Template text cut into literal text and the tokens of actions."""

from __future__ import annotations

from wherry.gotemplate.errors import TemplateError

_SPACE = " \t\r\n"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class Token:
    """`kind` is text, field, variable, word, string, number, char, or the punctuation itself; `at` its offset."""

    __slots__ = ("at", "kind", "text", "value")

    def __init__(self, kind: str, text: str, at: int, value: object = None) -> None:
        self.kind, self.text, self.at, self.value = kind, text, at, value


def error(text: str, at: int, message: str, name: str = "") -> TemplateError:
    """A parse error, with the line it is in."""
    return TemplateError(f"template: {name}:{text.count(chr(10), 0, at) + 1}: {message}", parsing=True)


def lex(text: str, name: str = "") -> list[Token | list[Token]]:
    """Literal texts (as text tokens) and actions (as lists of tokens), in order; trim markers are applied."""
    try:
        return _lex(text)
    except _Refused as refusal:
        raise error(text, refusal.at, str(refusal), name) from None


class _Refused(Exception):
    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


def _lex(text: str) -> list[Token | list[Token]]:
    items: list[Token | list[Token]] = []
    at, trim = 0, False
    while (opening := text.find("{{", at)) >= 0:
        literal = text[at:opening]
        inside = opening + 2
        if text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(_SPACE):
            literal = literal.rstrip(_SPACE)
            inside += 1
        _add_text(items, literal, trim, at)
        tokens, at, trim = _action(text, inside)
        if tokens is not None:
            items.append(tokens)
    _add_text(items, text[at:], trim, at)
    return items


def _add_text(items: list[Token | list[Token]], literal: str, trim: bool, at: int) -> None:
    if trim:
        literal = literal.lstrip(_SPACE)
    if literal:
        items.append(Token("text", literal, at))


def _action(text: str, at: int) -> tuple[list[Token] | None, int, bool]:
    """The tokens of the action at `at` (None for a comment), where it ends, whether it trims what follows."""
    start = at
    while text[at : at + 1] in tuple(_SPACE):
        at += 1
    if text.startswith("/*", at):
        end = text.find("*/", at)
        after = text[end + 2 :]
        if end < 0 or not after.startswith(("}}", " -}}")):
            raise _Refused(start, "unclosed comment" if end < 0 else "comment ends before closing delimiter")
        return None, end + (4 if after.startswith("}}") else 6), not after.startswith("}}")
    tokens: list[Token] = []
    while True:
        spaced = False
        while text[at : at + 1] in tuple(_SPACE):
            at, spaced = at + 1, True
        if text.startswith("}}", at):
            return tokens, at + 2, False
        if spaced and text.startswith("-}}", at):
            return tokens, at + 3, True
        if at >= len(text):
            raise _Refused(start, "unclosed action")
        if spaced and tokens:
            tokens.append(Token(" ", " ", at))
        token = _token(text, at)
        tokens.append(token)
        at += len(token.text)


def _token(text: str, at: int) -> Token:
    character = text[at]
    following = text[at + 1 : at + 2]
    if character == '"':
        return _string(text, at)
    if character == "`":
        end = text.find("`", at + 1)
        if end < 0:
            raise _Refused(at, "unterminated raw quoted string")
        return Token("string", text[at : end + 1], at, text[at + 1 : end])
    if character == "'":
        return _character(text, at)
    if character == "." and following.isdigit():
        return _number(text, at)
    if character in ".$":
        name = _word(text, at + 1)
        return Token("field" if character == "." else "variable", character + name, at, name)
    if character.isdigit() or (character in "+-" and (following.isdigit() or following == ".")):
        return _number(text, at)
    if text.startswith(":=", at):
        return Token(":=", ":=", at)
    if character in "()|,=":
        return Token(character, character, at)
    if word := _word(text, at):
        return Token("word", word, at, word)
    if character == "-":
        raise _Refused(at, f"unexpected bad character U+{ord(character):04X} {character!r} in command")
    if character in "{}[]":
        raise _Refused(at, f'unexpected "{character}" in operand')
    raise _Refused(at, f"unrecognized character in action: U+{ord(character):04X} {character!r}")


def _word(text: str, at: int) -> str:
    end = at
    while end < len(text) and (text[end] == "_" or text[end].isalnum()):
        end += 1
    return text[at:end]


def _string(text: str, at: int) -> Token:
    value: list[str] = []
    index = at + 1
    while index < len(text):
        character = text[index]
        if character == '"':
            return Token("string", text[at : index + 1], at, "".join(value))
        if character == "\n":
            break
        if character == "\\":
            piece, index = _escape(text, index)
            value.append(piece)
            continue
        value.append(character)
        index += 1
    raise _Refused(at, "unterminated quoted string")


def _escape(text: str, at: int) -> tuple[str, int]:
    letter = text[at + 1 : at + 2]
    if letter in _ESCAPES:
        return _ESCAPES[letter], at + 2
    length = {"x": 2, "u": 4, "U": 8}.get(letter)
    if length:
        digits = text[at + 2 : at + 2 + length]
        try:
            return chr(int(digits, 16)), at + 2 + length
        except ValueError:
            raise _Refused(at, f"invalid escape \\{letter}{digits}") from None
    return letter, at + 2


def _character(text: str, at: int) -> Token:
    index = at + 1
    if text[index : index + 1] == "\\":
        value, index = _escape(text, index)
    else:
        value, index = text[index : index + 1], index + 1
    if not value or text[index : index + 1] != "'":
        raise _Refused(at, "unterminated character constant")
    return Token("number", text[at : index + 1], at, ord(value))


def _number(text: str, at: int) -> Token:
    end = at + 1
    while end < len(text) and (
        text[end].isalnum() or text[end] in "._" or (text[end] in "+-" and text[end - 1] in "eE")
    ):
        end += 1
    word = text[at:end]
    try:
        return Token("number", word, at, int(word, 0))
    except ValueError:
        pass
    try:
        return Token("number", word, at, float(word))
    except ValueError:
        raise _Refused(at, f'bad number syntax: "{word}"') from None
