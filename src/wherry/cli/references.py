"""Image references as the user types them: checked and normalised before the engine is asked.

The grammar is that of the distribution project's reference package; a scanner by hand, since `re` alone costs as
much as a whole command.
"""

from __future__ import annotations

from wherry.cli.errors import StatusError

_HEX = frozenset("0123456789abcdef")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_INVALID = "invalid reference format"


class Reference:
    """`domain` and `path` make the full name; `tag` and `digest` are "" when absent."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str, digest: str) -> None:
        self.domain, self.path, self.tag, self.digest = domain, path, tag, digest

    @property
    def name(self) -> str:
        """The full name: "docker.io/library/busybox"."""
        return f"{self.domain}/{self.path}"

    @property
    def full(self) -> str:
        """The full name with tag and digest."""
        return f"{self.name}{self._rest}"

    @property
    def familiar_name(self) -> str:
        """The name without what is implied: "busybox" for docker.io/library/busybox."""
        if self.domain != "docker.io":
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix("library/")

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest."""
        return f"{self.familiar_name}{self._rest}"

    @property
    def _rest(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def with_default_tag(self) -> Reference:
        """The same with ":latest" where neither tag nor digest was given."""
        tag = self.tag if self.tag or self.digest else "latest"
        return Reference(self.domain, self.path, tag, self.digest)


def parse_any(text: str) -> Reference | None:
    """A named reference, None for an image id; raises StatusError with Docker's words."""
    if _is_id(text) or (text.startswith("sha256:") and _is_id(text[7:])):
        return None
    return parse(text)


def _is_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEX


def parse(text: str) -> Reference:
    """A named reference; raises StatusError."""
    if _is_id(text):
        raise StatusError(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    name, _, digest = rest.partition("@")
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    path, tag = (name[:colon], name[colon + 1 :]) if colon >= 0 else (name, "")
    bare = path if domain != "docker.io" or "/" in path else f"library/{path}"
    if bare != bare.lower():
        raise StatusError(f"{_INVALID}: repository name ({bare}) must be lowercase")
    if not (
        _is_domain(domain)
        and bare
        and all(_is_component(part) for part in bare.split("/"))
        and (colon < 0 or _is_tag(tag))
        and ("@" not in rest or _is_digest(digest))
    ):
        raise StatusError(_INVALID)
    if len(domain) + 1 + len(bare) > 255:
        raise StatusError("repository name must not be more than 255 characters")
    return Reference(domain, bare, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return "docker.io", text
    return ("docker.io" if first == "index.docker.io" else first), rest


def _is_domain(text: str) -> bool:
    host, colon, port = text.partition(":")
    if text.startswith("["):
        return "]" in text
    labels = host.split(".")
    return (not colon or port.isdigit()) and all(
        label and set(label) <= (_WORD - {"_"}) | {"-"} and label[0] != "-" and label[-1] != "-" for label in labels
    )


def _is_component(text: str) -> bool:
    """Lower-case letters and digits, joined by one dot, one or two underscores or any dashes."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separator = ""
    for character in text:
        if character in _LOWER:
            if separator and separator not in (".", "_", "__") and set(separator) != {"-"}:
                return False
            separator = ""
        elif character in "._-":
            separator += character
        else:
            return False
    return True


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= 128 and text[0] in _WORD and set(text) <= _WORD | {".", "-"}


def _is_digest(text: str) -> bool:
    algorithm, colon, value = text.partition(":")
    if not colon or not algorithm[:1].isalpha() or len(value) < 32:
        return False
    if algorithm == "sha256" and len(value) != 64:
        return False
    return set(value.lower()) <= _HEX and algorithm.replace("-", "").replace("+", "").replace(".", "").isalnum()
