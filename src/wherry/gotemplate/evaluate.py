"""Executing a parsed template over decoded JSON, dicts, or records with named columns."""

from __future__ import annotations

from wherry.gotemplate.errors import TemplateError
from wherry.gotemplate.functions import BUILTIN, is_text_map, truth
from wherry.gotemplate.gofmt import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

# Fields that Go's API types have but leave out of the JSON when empty: templates may ask for them all the same.
_OMITTED: dict[str, Any] = {
    "Health": None, "Healthcheck": None, "StopTimeout": None, "Init": None, "SizeRw": None, "SizeRootFs": None,
    "StopSignal": "", "Shell": None, "ExposedPorts": None, "Annotations": None, "StorageOpt": None, "Tmpfs": None,
    "Sysctls": None, "Runtime": "", "ArgsEscaped": False, "NetworkDisabled": False, "MacAddress": "", "Variant": "",
    "ImageManifestDescriptor": None, "Descriptor": None, "Manifests": None, "OsVersion": "", "Identity": None,
}  # fmt: skip


# Nothing looks different for each of Go's types; JSON's null does not say which one a field has.
_LISTS = frozenset(
    (
        "Args", "Binds", "BlkioWeightDevice", "CapAdd", "CapDrop", "Cmd", "DeviceCgroupRules", "DeviceRequests",
        "Devices", "Dns", "DnsOptions", "DnsSearch", "Entrypoint", "Env", "ExecIDs", "ExtraHosts", "GroupAdd", "Links",
        "MaskedPaths", "Mounts", "OnBuild", "ReadonlyPaths", "RepoDigests", "RepoTags", "SecurityOpt", "Shell",
        "Ulimits", "VolumesFrom", "Aliases", "DNSNames", "Processes", "Warnings",
    )
)  # fmt: skip
_MAPS = frozenset(
    (
        "Annotations", "DriverOpts", "ExposedPorts", "Labels", "Networks", "Options", "PortBindings", "Ports",
        "StorageOpt", "Sysctls", "Tmpfs", "Volumes",
    )
)  # fmt: skip


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Record(dict[str, Any] if TYPE_CHECKING else dict):  # type: ignore[misc]
    """A decoded object of which Docker knows the type: what it has not is no field. `type_name` is Go's name."""

    def __init__(self, values: dict[str, Any], type_name: str) -> None:
        super().__init__(values)
        self.type_name = type_name


class Execution:
    """One run over `data` of the template called `name`."""

    def __init__(self, data: Any, functions: Mapping[str, Callable[..., Any]], name: str = "") -> None:
        self._dot, self._name = data, name
        self._variables: list[tuple[str, Any]] = [("$", data)]
        self._functions = {**BUILTIN, **functions}
        self._out: list[str] = []

    def run(self, nodes: list[Any]) -> str:
        self._list(nodes)
        return "".join(self._out)

    def _list(self, nodes: list[Any]) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                self._out.append(node[1])
            elif kind == "print":
                value = self._pipe(node[1])
                if not node[1][0]:
                    self._out.append(_nothing(node[1]) if value is None else show(value))
            elif kind == "range":
                self._range(node)
            elif kind == "break":
                raise _Break
            elif kind == "continue":
                raise _Continue
            else:
                self._choose(node)

    def _choose(self, node: Any) -> None:
        kind, pipe, body, otherwise = node
        depth, dot = len(self._variables), self._dot
        value = self._pipe(pipe)
        if truth(value):
            if kind == "with":
                self._dot = value
            self._list(body)
        else:
            self._list(otherwise)
        self._dot = dot
        del self._variables[depth:]

    def _range(self, node: Any) -> None:
        _, pipe, body, otherwise = node
        depth, dot = len(self._variables), self._dot
        names, _, _ = pipe
        items = list(_items(self._pipe(([], False, pipe[2]))))
        try:
            for key, value in items:
                self._dot = value
                pair = (value,) if len(names) == 1 else (key, value)
                self._variables.extend(zip(names, pair, strict=False))
                try:
                    self._list(body)
                except _Continue:
                    pass
                del self._variables[depth:]
        except _Break:
            del self._variables[depth:]
        self._dot = dot
        if not items:
            self._list(otherwise)

    def _pipe(self, pipe: Any) -> Any:
        names, declares, commands = pipe
        value = self._command(commands[0], ())
        for command in commands[1:]:
            value = self._command(command, (value,))
        for name in names:
            if declares:
                self._variables.append((name, value))
            else:
                self._assign(name, value)
        return value

    def _assign(self, name: str, value: Any) -> None:
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == name:
                self._variables[position] = (name, value)
                return

    def _command(self, operands: list[Any], last: tuple[Any, ...]) -> Any:
        first = operands[0]
        if first[0] == "function" and first[1] in ("and", "or"):
            return self._short_circuit(first[1], operands[1:], last)
        if first[0] == "function":
            arguments = [self._operand(each) for each in operands[1:]]
            return self._fields(self._call(first, [*arguments, *last]), first)
        if len(operands) > 1 or last:
            arguments = [self._operand(each) for each in operands[1:]]
            return self._method(first, [*arguments, *last])
        return self._operand(first)

    def _short_circuit(self, name: str, operands: list[Any], last: tuple[Any, ...]) -> Any:
        value = None
        for operand in operands:
            value = self._operand(operand)
            if truth(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _call(self, operand: Any, arguments: list[Any]) -> Any:
        try:
            return self._functions[operand[1]](*arguments)
        except TemplateError as error:
            raise self._error(operand, str(error)) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise self._error(operand, f"wrong arguments for {operand[1]}: {error}") from None

    def _method(self, operand: Any, arguments: list[Any]) -> Any:
        """A field with arguments: a method of a record, such as `.Label "name"`."""
        kind, _, fields, _, text = operand
        target: Any = self._fields(self._base(operand), operand, fields[:-1]) if fields else None
        if kind not in ("dot", "variable") or not fields or not hasattr(target, "call"):
            raise self._error(operand, f"can't give argument to non-function {text}")
        try:
            return target.call(fields[-1], arguments)
        except KeyError:
            count = len(arguments)
            raise self._error(operand, f"wrong number of args for {fields[-1]}: want 0 got {count}") from None

    def _base(self, operand: Any) -> Any:
        kind, value = operand[0], operand[1]
        if kind == "dot":
            return self._dot
        if kind == "variable":
            return next(content for name, content in reversed(self._variables) if name == value)
        if kind == "pipe":
            return self._pipe(value)
        if kind == "function":
            return self._call(operand, [])
        return None if kind == "nil" else value

    def _operand(self, operand: Any) -> Any:
        return self._fields(self._base(operand), operand)

    def _fields(self, value: Any, operand: Any, fields: list[str] | None = None) -> Any:
        for name in operand[2] if fields is None else fields:
            value = self._field(value, name, operand)
        return value

    def _field(self, value: Any, name: str, operand: Any) -> Any:
        if isinstance(value, dict):
            if name in value:
                return value[name]
            lowered = name.lower()
            for key in value:
                if key.lower() == lowered:  # Go's field names and JSON's differ in case (ID, Id)
                    return value[key]
            if isinstance(value, Record):
                raise self._error(operand, f"can't evaluate field {name} in type {value.type_name}")
            if not value or is_text_map(value):
                return None
            if name in _OMITTED:
                return _OMITTED[name]
            raise self._error(operand, f'map has no entry for key "{name}"')
        if hasattr(value, "column"):
            try:
                return value.column(name)
            except KeyError:
                raise self._error(operand, f"can't evaluate field {name} in type {value.type_name}") from None
        if value is None:
            raise self._error(operand, f"nil data; no entry for key {chr(34)}{name}{chr(34)}")
        kinds = {str: "string", int: "int", bool: "bool", float: "float64", list: "[]interface {}"}
        raise self._error(operand, f"can't evaluate field {name} in type {kinds.get(type(value), 'interface {}')}")

    def _error(self, operand: Any, message: str) -> TemplateError:
        return TemplateError(
            f'template: {self._name}:1:{operand[3]}: executing "{self._name}" at <{operand[4]}>: {message}'
        )


def _nothing(pipe: Any) -> str:
    """How an absent value prints, by the name of the field that gave it."""
    operand = pipe[2][-1][0]
    name = operand[2][-1] if operand[2] else ""
    if name in _LISTS:
        return "[]"
    if name in _MAPS:
        return "map[]"
    return "<nil>" if name[:1].isupper() else "<no value>"


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield key, value[key]
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from ((number, number) for number in range(value))
    elif value is not None:
        raise TemplateError(f"range can't iterate over {show(value)}")
