"""The table of all commands. Only the module of the command that runs is imported.

A row: canonical path, module under wherry.cli.commands, key in the module's COMMANDS, summary, other paths.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.cli.command import Command
    from wherry.cli.flags import Flag


class Entry:
    """One command: `path` is its canonical name ("container run"), `aliases` every name incl. it, in help order."""

    __slots__ = ("aliases", "key", "module", "path", "summary")

    def __init__(self, path: str, module: str, key: str, summary: str, aliases: str = "") -> None:
        self.path, self.module, self.key, self.summary = path, module, key, summary
        self.aliases = tuple(alias.strip() for alias in aliases.split(",")) if aliases else (path,)

    def load(self) -> Command:
        """Import the module and return the command."""
        module = __import__(f"wherry.cli.commands.{self.module}", fromlist=("COMMANDS",))
        command: Command = module.COMMANDS[self.key]
        return command


COMMANDS = (
    Entry("builder prune", "prune", "builder", "Remove build cache"),
    Entry("buildx imagetools inspect", "imagetools", "inspect", "Show details of an image in the registry"),
    Entry("completion bash", "completion", "bash", "Generate the autocompletion script for bash"),
    Entry("completion fish", "completion", "fish", "Generate the autocompletion script for fish"),
    Entry("completion zsh", "completion", "zsh", "Generate the autocompletion script for zsh"),
    Entry(
        "container attach", "attach", "attach",
        "Attach local standard input, output, and error streams to a running container", "container attach, attach",
    ),
    Entry(
        "container commit", "changes", "commit", "Create a new image from a container's changes",
        "container commit, commit",
    ),
    Entry(
        "container cp", "cp", "cp", "Copy files/folders between a container and the local filesystem",
        "container cp, cp",
    ),
    Entry("container create", "create", "create", "Create a new container", "container create, create"),
    Entry(
        "container diff", "changes", "diff", "Inspect changes to files or directories on a container's filesystem",
        "container diff, diff",
    ),
    Entry("container exec", "exec", "exec", "Execute a command in a running container", "container exec, exec"),
    Entry(
        "container export", "changes", "export", "Export a container's filesystem as a tar archive",
        "container export, export",
    ),
    Entry("container inspect", "inspect", "container", "Display detailed information on one or more containers"),
    Entry("container kill", "lifecycle", "kill", "Kill one or more running containers", "container kill, kill"),
    Entry("container logs", "logs", "logs", "Fetch the logs of a container", "container logs, logs"),
    Entry("container ls", "ps", "ps", "List containers", "container ls, container list, container ps, ps"),
    Entry(
        "container pause", "lifecycle", "pause", "Pause all processes within one or more containers",
        "container pause, pause",
    ),
    Entry(
        "container port", "details", "port", "List port mappings or a specific mapping for the container",
        "container port, port",
    ),
    Entry("container prune", "prune", "container", "Remove all stopped containers"),
    Entry("container rename", "details", "rename", "Rename a container", "container rename, rename"),
    Entry("container restart", "lifecycle", "restart", "Restart one or more containers", "container restart, restart"),
    Entry(
        "container rm", "lifecycle", "rm", "Remove one or more containers", "container rm, container remove, rm"
    ),
    Entry(
        "container run", "run", "run", "Create and run a new container from an image", "container run, run"
    ),
    Entry("container start", "start", "start", "Start one or more stopped containers", "container start, start"),
    Entry(
        "container stats", "stats", "stats", "Display a live stream of container(s) resource usage statistics",
        "container stats, stats",
    ),
    Entry("container stop", "lifecycle", "stop", "Stop one or more running containers", "container stop, stop"),
    Entry("container top", "details", "top", "Display the running processes of a container", "container top, top"),
    Entry(
        "container unpause", "lifecycle", "unpause", "Unpause all processes within one or more containers",
        "container unpause, unpause",
    ),
    Entry(
        "container update", "update", "update", "Update configuration of one or more containers",
        "container update, update",
    ),
    Entry(
        "container wait", "lifecycle", "wait", "Block until one or more containers stop, then print their exit codes",
        "container wait, wait",
    ),
    Entry("context create", "context", "create", "Create a context"),
    Entry(
        "context export", "context", "export", "Export a context to a tar archive FILE or a tar stream on STDOUT."
    ),
    Entry("context import", "context", "import", "Import a context from a tar or zip file"),
    Entry("context inspect", "context", "inspect", "Display detailed information on one or more contexts"),
    Entry("context ls", "context", "ls", "List contexts", "context ls, context list"),
    Entry("context rm", "context", "rm", "Remove one or more contexts", "context rm, context remove"),
    Entry("context show", "context", "show", "Print the name of the current context"),
    Entry("context update", "context", "update", "Update a context"),
    Entry("context use", "context", "use", "Set the current docker context"),
    Entry("image bootstrap", "bootstrap", "bootstrap", "Make a distribution's base image of its packages"),
    Entry("image diff", "image_files", "diff", "Show the paths that differ between two images"),
    Entry("image flatten", "image_files", "flatten", "Make an image of one layer with the files of another"),
    Entry("image from-host", "from_host", "from-host", "Make an image out of programs of this host"),
    Entry("image history", "history", "history", "Show the history of an image", "image history, history"),
    Entry(
        "image import", "load", "import", "Import the contents from a tarball to create a filesystem image",
        "image import, import",
    ),
    Entry("image inspect", "inspect", "image", "Display detailed information on one or more images"),
    Entry("image load", "load", "load", "Load an image from a tar archive or STDIN", "image load, load"),
    Entry("image ls", "images", "images", "List images", "image ls, image list, images"),
    Entry("image prune", "prune", "image", "Remove unused images"),
    Entry("image pull", "pull", "pull", "Download an image from a registry", "image pull, pull"),
    Entry("image push", "push", "push", "Upload an image to a registry", "image push, push"),
    Entry("image rm", "images", "rmi", "Remove one or more images", "image rm, image remove, rmi"),
    Entry(
        "image save", "save", "save", "Save one or more images to a tar archive (streamed to STDOUT by default)",
        "image save, save",
    ),
    Entry(
        "image tag", "images", "tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", "image tag, tag"
    ),
    Entry("image tree", "image_files", "tree", "Show the layers of images and who shares them"),
    Entry("manifest annotate", "manifest", "annotate", "Add additional information to a local image manifest"),
    Entry(
        "manifest create", "manifest", "create",
        "Create a local manifest list for annotating and pushing to a registry",
    ),
    Entry("manifest inspect", "manifest", "inspect", "Display an image manifest, or manifest list"),
    Entry("manifest push", "manifest", "push", "Push a manifest list to a repository"),
    Entry("manifest rm", "manifest", "rm", "Delete one or more manifest lists from local storage"),
    Entry("network inspect", "inspect", "network", "Display detailed information on one or more networks"),
    Entry("network ls", "network", "ls", "List networks", "network ls, network list"),
    Entry("network prune", "prune", "network", "Remove all unused networks"),
    Entry("system df", "df", "df", "Show docker disk usage"),
    Entry(
        "system dial-stdio", "dial", "dial-stdio",
        "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    ),
    Entry("system events", "events", "events", "Get real time events from the server", "system events, events"),
    Entry("system info", "info", "info", "Display system-wide information", "system info, info"),
    Entry("system prune", "prune", "system", "Remove unused data"),
    Entry("volume create", "volume", "create", "Create a volume"),
    Entry("volume inspect", "inspect", "volume", "Display detailed information on one or more volumes"),
    Entry("volume ls", "volume", "ls", "List volumes", "volume ls, volume list"),
    Entry("volume prune", "prune", "volume", "Remove unused local volumes"),
    Entry("volume rm", "volume", "rm", "Remove one or more volumes", "volume rm, volume remove"),
    Entry("login", "login", "login", "Authenticate to a registry"),
    Entry("logout", "login", "logout", "Log out from a registry"),
    Entry("search", "search", "search", "Search Docker Hub for images"),
    Entry("inspect", "inspect", "inspect", "Return low-level information on Docker objects"),
    Entry("version", "version", "version", "Show the Docker version information"),
)  # fmt: skip

GROUPS = {
    "builder": "Manage builds",
    "buildx": "Commands of Docker's build plugin",
    "buildx imagetools": "Commands to work on images in registry",
    "completion": "Generate the autocompletion script for the specified shell",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "manifest": "Manage Docker image manifests and manifest lists",
    "network": "Manage networks",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}

# The ones a newcomer looks for, listed first.
COMMON = ("run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info")
HIDDEN = ("system dial-stdio",)

BY_NAME = {alias: entry for entry in COMMANDS for alias in entry.aliases}


def depth_of(words: Sequence[str]) -> int:
    """How many of `words`, one at least, name a command or a group of them."""
    depth = 1
    while depth < len(words) and " ".join(words[:depth]) in GROUPS:
        depth += 1
    return depth


def flags_of(path: str) -> tuple[Flag, ...]:
    """The flags of the command called `path`, e.g. "run" or "container ls"; KeyError when there is none."""
    return tuple(BY_NAME[path].load().flags)
