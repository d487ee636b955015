"""How many rely on each blob and layer: what somebody relies on is not deleted."""

from collections import Counter
from collections.abc import Iterable


class Leases:
    """Digests with the number of their users. For one thread at a time."""

    def __init__(self) -> None:
        self._users: Counter[str] = Counter()

    def take(self, digests: Iterable[str]) -> None:
        """One user more of each."""
        self._users.update(digests)

    def end(self, digests: Iterable[str]) -> None:
        """One user less of each."""
        for digest in digests:
            self._users[digest] -= 1
            if self._users[digest] <= 0:
                del self._users[digest]

    def __contains__(self, digest: str) -> bool:
        return digest in self._users

    def digests(self) -> set[str]:
        """All that have a user."""
        return set(self._users)
