"""What a container's config becomes by the image's: Docker's rules (its `daemon/commit.go`, `merge`), pure.

Keys are Docker's JSON names. The user's values win; what is unset comes from the image; Env, Labels, ExposedPorts
and Volumes are united; the image's Shell and OnBuild are not taken over. Entrypoint and Cmd go together: an
entrypoint of the user's makes the image's Cmd void.
"""

from typing import Any

Config = dict[str, Any]

_HEALTH_FIELDS = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def merge(user: Config, image: Config) -> Config:
    """The config of a container: a new dict, neither argument is changed nor shared in its containers.

    `user`: what the client asked for; `Entrypoint: None` (or no key) and `Entrypoint: []` differ, as on the wire.
    `image`: the image's "config" object. A sole empty string as entrypoint resets it to none.
    """
    merged = dict(user)
    for key in ("User", "WorkingDir", "StopSignal"):
        merged[key] = user.get(key) or image.get(key) or ""
    for key in ("ExposedPorts", "Volumes"):
        united = {**(image.get(key) or {}), **(user.get(key) or {})}
        merged[key] = united or None
    merged["Labels"] = {**(image.get("Labels") or {}), **(user.get("Labels") or {})}
    merged["Env"] = merge_env(user.get("Env") or [], image.get("Env") or []) or None
    merged["Entrypoint"], merged["Cmd"] = _command(user, image)
    if image.get("Healthcheck"):
        merged["Healthcheck"] = _health(user.get("Healthcheck"), image["Healthcheck"])
    return merged


def merge_env(user: list[str], image: list[str]) -> list[str]:
    """The user's variables, then those of the image's that the user does not name."""
    named = {item.partition("=")[0] for item in user}
    return [*user, *(item for item in image if item.partition("=")[0] not in named)]


def _words(value: Any) -> list[str] | None:
    """A command as a list: clients may send one string instead."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _command(user: Config, image: Config) -> tuple[list[str] | None, list[str] | None]:
    entrypoint, cmd = _words(user.get("Entrypoint")), _words(user.get("Cmd"))
    if not entrypoint:
        if not cmd:
            cmd = _words(image.get("Cmd"))
        if entrypoint is None:
            entrypoint = _words(image.get("Entrypoint"))
    if entrypoint == [""]:
        entrypoint = None
    return entrypoint, cmd


def _health(user: Config | None, image: Config) -> Config:
    if not user:
        return dict(image)
    return {**user, **{key: user.get(key) or image[key] for key in _HEALTH_FIELDS if image.get(key)}}
