"""The keys that end an attachment to a terminal without ending the process."""


class DetachKeys:
    """Finds the sequence `keys` in what a client types, however it is cut into reads. A started sequence is held back
    until it is clear that it is none. Empty keys: nothing is ever found."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0  # how many bytes of the keys have been seen

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what the process shall get, whether the sequence is complete); what follows the sequence is dropped."""
        keys = self._keys
        if not keys or (not self._held and keys[0] not in data):
            return data, False
        data = keys[: self._held] + data
        found = data.find(keys)
        if found >= 0:
            self._held = 0
            return data[:found], True
        self._held = next(n for n in range(min(len(keys) - 1, len(data)), -1, -1) if data.endswith(keys[:n]))
        return data[: len(data) - self._held], False

    def end(self) -> bytes:
        """What was held back, when no more comes."""
        held, self._held = self._keys[: self._held], 0
        return held
