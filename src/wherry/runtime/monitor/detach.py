"""The keys that end an attachment to a terminal without ending the process."""


class DetachKeys:
    """Finds the sequence `keys` in what a client types or pastes, however it is cut into reads. A started sequence is
    held back until it is clear that it is none. As in Docker, a key that breaks a sequence off does not begin the next
    one: of ctrl-p ctrl-p ctrl-q, the process gets all. Empty keys: nothing is ever found."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0  # how many bytes of the keys have been seen

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what the process shall get, whether the sequence is complete); what follows the sequence is dropped."""
        keys, seen = self._keys, self._held
        if not keys:
            return data, False
        data, place = keys[:seen] + data, seen
        while place < len(data):
            if not seen:
                place = data.find(keys[0], place)
                if place < 0:
                    break
            seen = seen + 1 if data[place] == keys[seen] else 0
            place += 1
            if seen == len(keys):
                self._held = 0
                return data[: place - seen], True
        self._held = seen
        return data[: len(data) - seen], False

    def end(self) -> bytes:
        """What was held back, when no more comes."""
        held, self._held = self._keys[: self._held], 0
        return held
