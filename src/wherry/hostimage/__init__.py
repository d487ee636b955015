"""Images made of this host's own programs: standard library only, nothing executed, nothing of the engine needed."""

from wherry.hostimage.build import build_archive

__all__ = ["build_archive"]
