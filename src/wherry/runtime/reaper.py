"""The program that `--init` puts before the container's own: our own small static one, or one of the host's."""

import os

from wherry.errors import NotFound

_OURS = os.path.join(os.path.dirname(__file__), "init_reaper", f"reaper-{os.uname().machine}")
_OTHERS = ("/usr/bin/docker-init", "/usr/bin/tini-static", "/usr/bin/catatonit", "/usr/libexec/catatonit/catatonit")


def path() -> str:
    """The host's path of a static executable for this machine that understands `-- PROGRAM [ARGUMENT...]`. Raises
    NotFound when there is none."""
    for candidate in (_OURS, *_OTHERS):
        if os.access(candidate, os.X_OK):
            return candidate
    raise NotFound(f"there is no init for containers on this machine ({os.uname().machine}): install tini-static")
