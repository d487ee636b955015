"""The key sequence that leaves a terminal session without ending it: "ctrl-p,ctrl-q" (moby/term ascii.go)."""

from wherry.errors import InvalidArgument

DEFAULT = b"\x10\x11"

_CONTROL = {f"ctrl-{chr(code + 96)}": code for code in range(1, 27)} | {
    "ctrl-@": 0,
    "ctrl-[": 27,
    "ctrl-\\": 28,
    "ctrl-]": 29,
    "ctrl-^": 30,
    "ctrl-_": 31,
    "DEL": 127,
}


def parse(text: str) -> bytes:
    """The bytes of a comma-separated sequence; "" is the default. Raises `InvalidArgument` naming the text."""
    if not text:
        return DEFAULT
    out = bytearray()
    for key in text.split(","):
        if len(key) == 1 and ord(key) < 128:
            out.append(ord(key))
        elif key in _CONTROL:
            out.append(_CONTROL[key])
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(out)
