"""The overlay driver: layers are stacked as they are."""

from pathlib import Path


class OverlayDriver:
    """Lower directories are the layers themselves."""

    name = "overlay2"
    stacked = True

    def __init__(self, *, indexes: bool = False) -> None:
        """`indexes`: new layers are indexes of their tars rather than trees. It takes EROFS."""
        self.indexes = indexes

    def lower(self, key: str, layers: list[Path]) -> list[Path]:
        """The layers, top first."""
        return layers

    def release(self, key: str) -> None:
        """Nothing is kept per image."""

    def prepare(self, lower: list[Path], upper: Path) -> None:
        """Nothing: it begins empty."""

    def keys(self) -> set[str]:
        """None."""
        return set()
