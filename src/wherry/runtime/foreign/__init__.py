"""Containers run by another OCI runtime: runc, crun, or any that has their command line.

    helper (`monitor.birth`)                        the runtime
    own mount namespace: overlay on bundle/rootfs
    config.json, user looked up
    RUNTIME create ───────────────────────────────▶ makes namespaces, cgroup, init; exits
    [watches the cgroup]
    RUNTIME start ────────────────────────────────▶ init executes the program
    exits; init becomes the monitor's child

The runtime sees the root file system because the helper mounts it, in a mount namespace that ends with the helper: the
host's mount table never shows it, and the container has it in its own. Everything else, from logs to limits, works on
init, its pipes and its cgroup as with our own runtime, which needs none of this: nothing here is imported for it.

The runtime's own state lies in the bundle, so that whatever removes the bundle removes that too.
"""

from wherry.runtime.foreign.runtime import Created, Runtime

__all__ = ["Created", "Runtime"]
