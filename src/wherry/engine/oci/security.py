"""Seccomp, AppArmor, SELinux, no_new_privs; and what of them applies to an exec.

Docker ignores an AppArmor or SELinux option where the host has neither. Here it is refused: a container that was asked
to be confined must not run unconfined (CVE-2025-65105's class).
"""

import json
from typing import Any

from wherry.engine import defaults
from wherry.engine.model import HostConfig
from wherry.engine.oci.input import ContainerSpecInput
from wherry.errors import InvalidArgument
from wherry.linux import seccomp
from wherry.runtime.seccomp import docker

_DOCKER_APPARMOR = "docker-default"


def options_of(host: HostConfig) -> dict[str, str]:
    """HostConfig.SecurityOpt as a map ("label" joined by spaces); the last of a kind counts. Raises InvalidArgument for
    what is no option."""
    found: dict[str, str] = {}
    for option in host.SecurityOpt or ():
        if option in ("no-new-privileges", "writable-cgroups"):
            found[option] = "true"
            continue
        # The colon is the syntax of old; a JSON profile has colons too.
        separator = "=" if "=" in option else ":"
        key, separated, value = option.partition(separator)
        if not separated:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if key == "label":
            value = f"{found.get('label', '')} {value}".strip()
        elif key in ("no-new-privileges", "writable-cgroups"):
            value = _boolean(key, value)
        elif key not in ("seccomp", "apparmor"):
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
        found[key] = value
    return found


def _boolean(key: str, value: str) -> str:
    truth = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}.get(value.lower())
    if truth is None:
        raise InvalidArgument(f'invalid --security-opt 2: "{key}={value}"')
    return "true" if truth else ""


def no_new_privileges(container: ContainerSpecInput) -> bool:
    """--security-opt no-new-privileges[=BOOL], else the daemon's default."""
    asked = options_of(container.host_config).get("no-new-privileges")
    return container.no_new_privileges if asked is None else asked == "true"


def writable_cgroups(container: ContainerSpecInput) -> bool:
    """/sys/fs/cgroup is not read-only."""
    asked = options_of(container.host_config).get("writable-cgroups")
    return container.host_config.Privileged or asked == "true"


def seccomp_of(container: ContainerSpecInput) -> dict[str, Any] | None:
    """`linux.seccomp`, None for unconfined. Privileged containers have a profile only when they name one. Raises
    InvalidArgument for a malformed profile and where the kernel has no filters."""
    host = container.host_config
    asked = options_of(host).get("seccomp", "")
    if not asked and host.Privileged:
        return None
    text = asked or container.seccomp_profile
    if text == "unconfined":
        return None
    if not seccomp.available():
        if not asked or asked == "builtin":
            return None
        raise InvalidArgument("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
    profile = docker.default_profile() if text in ("", "builtin") else _parse_profile(text)
    capabilities = defaults.tweak_capabilities(
        host.CapAdd, host.CapDrop, privileged=host.Privileged, bounding=container.bounding
    )
    try:
        return docker.resolve(profile, capabilities, container.machine, container.kernel)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _parse_profile(text: str) -> dict[str, Any]:
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from None
    if not isinstance(profile, dict):
        raise InvalidArgument("Decoding seccomp profile failed: it is not an object")
    return profile


def apparmor_profile(container: ContainerSpecInput) -> str:
    """The profile to enter, "" for none. Docker's own is applied where it is loaded."""
    loaded = container.apparmor_profiles
    asked = options_of(container.host_config).get("apparmor", "")
    if asked == "unconfined" or (not asked and container.host_config.Privileged):
        return "" if loaded is None else "unconfined"
    if loaded is None:
        if asked:
            raise InvalidArgument(f'AppArmor is not enabled on this system: cannot apply the profile "{asked}"')
        return ""
    if asked and asked not in loaded:
        raise InvalidArgument(f'AppArmor profile "{asked}" is not loaded on this system')
    return asked or (_DOCKER_APPARMOR if _DOCKER_APPARMOR in loaded else "")


def check_labels(container: ContainerSpecInput) -> None:
    """Refuse SELinux labels, which nothing here would apply; `label=disable` asks for nothing."""
    label = options_of(container.host_config).get("label", "")
    if label not in ("", "disable"):
        state = "labels are not supported by this engine" if container.selinux else "is not enabled on this system"
        raise InvalidArgument(f'SELinux {state}: cannot apply the label "{label}"')


def exec_process(
    container: ContainerSpecInput,
    process: dict[str, Any],
    *,
    args: list[str],
    env: list[str],
    cwd: str,
    user: str,
    tty: bool,
    privileged: bool,
) -> dict[str, Any]:
    """The OCI process of an exec: that of the container (`process` of its configuration) with another program.

    `env`, `cwd` and `user` go before the container's where given; `privileged` gives all capabilities the daemon has
    and leaves everything else as it is, as Docker does."""
    result = {key: value for key, value in process.items() if key not in ("terminal", "consoleSize")}
    result["args"] = list(args)
    result["cwd"] = cwd or process["cwd"]
    if tty:
        result["terminal"] = True
    if user:
        result["user"] = process["user"] | {"username": user}
    result["env"] = _exec_environment(process["env"], env, tty)
    if privileged:
        every = defaults.tweak_capabilities((), (), privileged=True, bounding=container.bounding)
        result["capabilities"] = {name: list(every) for name in ("bounding", "effective", "permitted")}
    return result


def _exec_environment(inherited: list[str], given: list[str], tty: bool) -> list[str]:
    merged = {entry.partition("=")[0]: entry for entry in inherited}
    if tty:
        merged.setdefault("TERM", "TERM=xterm")
    for entry in given:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())
