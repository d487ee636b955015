"""The `tag` of a log: a template over what a log driver knows of its container, as Docker expands it.

The names are those of moby's daemon/logger/loginfo.go; functions are those of every template.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

from wherry.engine.model import Container
from wherry.errors import Internal
from wherry.gotemplate import Template, TemplateError
from wherry.gotemplate.gofmt import TextMap, show
from wherry.jsontext import dumps
from wherry.runtime.logs.stamp import Clock

_NAME = "log-tag"
_SECOND = 1_000_000_000


def expand(record: Container, template: str, path: str, attributes: dict[str, str]) -> str:
    """`template` for the container whose log is at `path` and has these extra attributes. Raises `Internal` with Go's
    words for one that makes no sense."""
    try:
        return Template(template, _NAME).execute(_Info(record, path, attributes))
    except TemplateError as error:
        prefix = "failed to create task for container: failed to initialize logging driver: "
        raise Internal(f"{prefix}{error}") from None


class _Info:
    """The dot of the template (`gotemplate.evaluate`: `column`, `call`, `as_json`)."""

    type_name = "*logger.Info"

    def __init__(self, record: Container, path: str, attributes: dict[str, str]) -> None:
        self._attributes = attributes
        self._created = _Moment(record.created)
        self._fields: dict[str, Any] = {
            "Config": TextMap(record.host_config.LogConfig.Config or {}),
            "ContainerID": record.id,
            "ContainerName": f"/{record.name}",
            "ContainerEntrypoint": record.path,
            "ContainerArgs": list(record.args),
            "ContainerImageID": record.image_id,
            "ContainerImageName": record.config.Image,
            "ContainerCreated": self._created,
            "ContainerEnv": list(record.config.Env or []),
            "ContainerLabels": TextMap(record.config.Labels or {}),
            "LogPath": path,
            "DaemonName": "docker",
        }
        self._methods: dict[str, Callable[[], str]] = {
            "Hostname": socket.gethostname,
            "Command": lambda: " ".join([record.path, *record.args]),
            "ID": lambda: record.id[:12],
            "FullID": lambda: record.id,
            "Name": lambda: record.name,
            "ImageID": lambda: record.image_id[:12],
            "ImageFullID": lambda: record.image_id,
            "ImageName": lambda: record.config.Image,
        }

    def column(self, name: str) -> Any:
        return self._methods[name]() if name in self._methods else self._fields[name]

    def call(self, name: str, arguments: list[Any]) -> Any:
        """`.ExtraAttributes nil`: the chosen labels and variables; its argument would be a function."""
        if name != "ExtraAttributes" or arguments != [None]:
            raise KeyError(name)
        return TextMap(self._attributes)

    def as_json(self) -> str:
        fields = {**self._fields, "ContainerCreated": self._created.rfc3339()}
        return dumps({name: value for name, value in fields.items() if value is not None}, html=False)

    def __str__(self) -> str:
        return "{" + " ".join(show(value) for value in self._fields.values()) + "}"


class _Moment:
    """A time in UTC, as Go prints it."""

    type_name = "time.Time"

    def __init__(self, time_ns: int) -> None:
        self._time_ns = time_ns

    def rfc3339(self) -> str:
        return Clock().nano(self._time_ns).decode()

    def column(self, name: str) -> int:
        moment = time.gmtime(self._time_ns // _SECOND)
        parts = {"Year": moment.tm_year, "Day": moment.tm_mday, "YearDay": moment.tm_yday, "Hour": moment.tm_hour}
        parts |= {"Minute": moment.tm_min, "Second": moment.tm_sec, "Nanosecond": self._time_ns % _SECOND}
        return {**parts, "Unix": self._time_ns // _SECOND, "UnixNano": self._time_ns}[name]

    def as_json(self) -> str:
        return f'"{self.rfc3339()}"'

    def __str__(self) -> str:
        return self.rfc3339().replace("T", " ").replace("Z", " +0000 UTC")
