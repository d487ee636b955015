"""`docker rmi`: what is untagged, what is deleted, what stands in the way (Docker's `daemon/images/image_delete.go`).

Two ways lead to an image. By name, the name goes; the image follows when it was the last and nothing needs it, and
if something does that is no error. By id, the image goes with its names, unless it has names in several
repositories, has children, or is used.
"""

from collections.abc import Callable
from typing import NamedTuple

from wherry.errors import Conflict
from wherry.images.records import Records
from wherry.images.references import Reference, parse


class ImageUser(NamedTuple):
    """A container made from an image."""

    id: str
    running: bool


Users = Callable[[str], list[ImageUser]]
Deletion = dict[str, str]
_SHORT = 12


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHORT]


def is_id_prefix(image_id: str, text: str) -> bool:
    """Whether `text`, which led to the image, is its id or a beginning of it rather than a name."""
    return image_id.startswith(text) or image_id.removeprefix("sha256:").startswith(text)


def _is_single(references: list[Reference]) -> bool:
    """Whether the names are at most one tag, with digests of the same repository."""
    if len(references) <= 1:
        return True
    tags = [reference for reference in references if not reference.digest]
    repositories = {reference.name for reference in references if reference.digest}
    if len(tags) > 1:
        return False
    return repositories == {(tags or references)[0].name}


class _Obstacle(NamedTuple):
    """Why an image cannot go. `used`: a container needs it."""

    message: str
    hard: bool
    used: bool = False

    def error(self, image_id: str) -> Conflict:
        how = "cannot be forced" if self.hard else "must be forced"
        return Conflict(f"conflict: unable to delete {_short(image_id)} ({how}) - {self.message}")


class Removal:
    """One `rmi`; `deleted` is Docker's answer, `images` the ids whose rows are to go, in order."""

    def __init__(self, records: Records, users: Users, drop: Callable[[str], list[str]]) -> None:
        """`drop(image_id)` deletes an image's rows and returns the chain ids of the layers that go with it."""
        self._records = records
        self._users = users
        self._drop = drop
        self.deleted: list[Deletion] = []

    def remove(self, image_id: str, text: str, *, force: bool, prune: bool) -> None:
        """Remove what `text` names, which was resolved to `image_id`. Raises `Conflict`."""
        references = self._records.references(image_id)
        if is_id_prefix(image_id, text):
            if _is_single(references):
                obstacle = self._obstacle(image_id, soft=not force, names=False)
                if obstacle is not None:
                    raise obstacle.error(image_id)
                self._untag(references)
            self._delete(image_id, force=force, prune=prune, quiet=False)
            return
        if not force and _is_single(references):
            self._refuse_last_name(image_id, text)
        if not self._untag_name(parse(text), image_id):
            self._delete(image_id, force=force, prune=prune, quiet=True)

    def _refuse_last_name(self, image_id: str, text: str) -> None:
        users = self._users(image_id)
        if users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - container '
                f"{_short(users[0].id)} is using its referenced image {_short(image_id)}"
            )

    def _untag_name(self, reference: Reference, image_id: str) -> list[Reference]:
        """Remove one name, and the digests of its repository when no tag of it is left; return the names left."""
        reference = reference._replace(tag="") if reference.digest else reference.tagged()
        self._untag([reference])
        left = self._records.references(image_id)
        if not reference.digest and not any(r.name == reference.name and not r.digest for r in left):
            orphans = [r for r in left if r.name == reference.name]
            self._untag(orphans)
            left = [r for r in left if r not in orphans]
        return left

    def _untag(self, references: list[Reference]) -> None:
        for reference in references:
            self._records.untag(reference)
            self.deleted.append({"Untagged": reference.familiar})

    def _delete(self, image_id: str, *, force: bool, prune: bool, quiet: bool) -> None:
        obstacle = self._obstacle(image_id, soft=not force, names=True)
        if obstacle is not None:
            if quiet and (not self._is_dangling(image_id) or obstacle.used):
                return
            raise obstacle.error(image_id)
        parent = self._records.parent(image_id)
        self._untag(self._records.references(image_id))
        chains = self._drop(image_id)
        self.deleted.append({"Deleted": image_id})
        self.deleted.extend({"Deleted": chain} for chain in chains)
        if prune and parent and parent in self._records.ids():
            self._delete(parent, force=False, prune=True, quiet=True)

    def _is_dangling(self, image_id: str) -> bool:
        return not self._records.references(image_id) and not self._records.children(image_id)

    def _obstacle(self, image_id: str, *, soft: bool, names: bool) -> _Obstacle | None:
        """What stands in the way; `soft` obstacles count when not forced, `names` being one of them."""
        if self._records.children(image_id):
            return _Obstacle("image has dependent child images", hard=True)
        users = self._users(image_id)
        running = next((user for user in users if user.running), None)
        if running is not None:
            return _Obstacle(f"image is being used by running container {_short(running.id)}", hard=True, used=True)
        if soft and names and self._records.references(image_id):
            return _Obstacle("image is referenced in multiple repositories", hard=False)
        if soft and users:
            return _Obstacle(f"image is being used by stopped container {_short(users[0].id)}", hard=False, used=True)
        return None
