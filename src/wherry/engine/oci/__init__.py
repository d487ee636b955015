"""From a container's record to the OCI runtime configuration that runs it.

The result is what Docker 28.5 would give its runtime (moby daemon/oci_linux.go), field by field: tests compare with
configurations recorded from it. Everything is decided from the `ContainerSpecInput`; the host is only asked about
device nodes and mount propagation, and only where the container names them.
"""

from wherry.engine.oci.config import build_config, cgroup_path
from wherry.engine.oci.input import ContainerSpecInput
from wherry.engine.oci.resources import resources_of, update_resources
from wherry.engine.oci.security import exec_process
from wherry.engine.oci.support import confine_without_devices, discard_unsupported

__all__ = [
    "ContainerSpecInput",
    "build_config",
    "cgroup_path",
    "confine_without_devices",
    "discard_unsupported",
    "exec_process",
    "resources_of",
    "update_resources",
]
