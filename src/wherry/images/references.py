"""Image references: `[domain/]path[:tag][@digest]`, in Docker's grammar and with its short forms.

    familiar          normalised (what is stored)
    ubuntu            docker.io/library/ubuntu
    me/app:1          docker.io/me/app:1
    host:5000/app     host:5000/app
    x@sha256:…        docker.io/library/x@sha256:…

The grammar is that of the distribution project's reference package (its `regexp.go` and `normalize.go`); the words
of the errors are what clients see today. Everything here is pure.
"""

import re
from typing import NamedTuple

from wherry.digests import LENGTHS as DIGEST_LENGTHS
from wherry.digests import check_digest as check_digest
from wherry.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_MAX = 255
_REFERENCE_MAX = 4096

_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[\w][\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(rf"((?:{_DOMAIN}/)?{_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_TAG_ONLY = re.compile(_TAG, re.ASCII)
_ID = re.compile(r"[a-f0-9]{64}")


class Reference(NamedTuple):
    """A normalised reference. `domain` and `path` are never empty; `tag` and `digest` are empty when not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository in full: `docker.io/library/ubuntu`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `ubuntu`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: `ubuntu:22.04`."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> "Reference":
        """This reference with `:latest` when it has neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag="latest")


def is_image_id(text: str) -> bool:
    """Whether `text` is a full image id, with or without `sha256:`."""
    return _ID.fullmatch(text.removeprefix("sha256:")) is not None


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and (not {".", ":"}.isdisjoint(first) or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def parse(text: str) -> Reference:
    """Parse and normalise a reference a person typed. No tag is made up: see `Reference.tagged`.

    Raises `InvalidArgument` with Docker's words: `invalid reference format` and its variants.
    """
    if len(text) > _REFERENCE_MAX:
        raise InvalidArgument("invalid reference format")
    if _ID.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    repository = re.split(r"[:@]", rest, maxsplit=1)[0]
    if repository.lower() != repository:
        raise InvalidArgument(f"invalid reference format: repository name ({repository}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidArgument("invalid reference format")
    name, tag, digest = match.group(1), match.group(2) or "", match.group(3) or ""
    domain, _, path = name.partition("/")
    if len(path) > _NAME_MAX:
        raise InvalidArgument(f"repository name must not be more than {_NAME_MAX} characters")
    if digest:
        check_digest(digest)
    return Reference(domain, path, tag, digest)


def parse_tag(text: str) -> str:
    """Return `text` when it is a valid tag; raise `InvalidArgument("invalid tag format")` otherwise."""
    if not _TAG_ONLY.fullmatch(text):
        raise InvalidArgument("invalid tag format")
    return text


def parse_tag_target(text: str) -> Reference:
    """Parse the name that an image is about to get: like `parse`, with `:latest` added, and refusing digests and
    names that look like one (`docker tag`'s rules)."""
    reference = parse(text)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_name in DIGEST_LENGTHS:
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.tagged()


def familiar(stored: str) -> str:
    """The familiar form of a normalised reference that this module made."""
    return parse(stored).familiar
