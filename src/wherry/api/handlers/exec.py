"""/exec, and POST /containers/{name}/exec."""

import logging
from typing import Any

from msgspec import Struct

from wherry.api import errors
from wherry.api.context import Context, json_response
from wherry.api.conversation import Conversation
from wherry.api.decode import convert
from wherry.api.handlers.containers import dimensions
from wherry.engine import exec as engine_exec
from wherry.engine.model import ExecConfig, ExecRecord
from wherry.errors import InvalidArgument, WherryError
from wherry.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, HttpHijack
from wherry.http.message import Response
from wherry.http.stdcopy import STDOUT, frame

_CONSOLE_SIZE_SINCE = (1, 42)

log = logging.getLogger(__name__)


class StartOptions(Struct):
    """Body of `POST /exec/{id}/start`; ConsoleSize is height and width."""

    Detach: bool = False
    Tty: bool = False
    ConsoleSize: tuple[int, int] | None = None


async def create(ctx: Context) -> Response:
    config = convert(ExecConfig, await ctx.json(optional=True), go_type="container.ExecOptions", at="ExecOptions")
    if not config.Cmd:
        raise InvalidArgument("No exec command specified")
    if ctx.version < _CONSOLE_SIZE_SINCE:
        config.ConsoleSize = None
    return json_response({"Id": await engine_exec.create_exec(ctx.engine, ctx.name, config)}, 201)


async def inspect(ctx: Context) -> Response:
    return json_response(shape(engine_exec.inspect_exec(ctx.engine, ctx.name)))


def shape(record: ExecRecord) -> dict[str, Any]:
    """GET /exec/{id}/json."""
    process: dict[str, Any] = {
        "tty": record.config.Tty,
        "entrypoint": record.entrypoint,
        "arguments": record.arguments,
        "privileged": record.config.Privileged,
    }
    if record.config.User:
        process["user"] = record.config.User
    return {
        "ID": record.id,
        "Running": record.running,
        "ExitCode": record.exit_code,
        "ProcessConfig": process,
        "OpenStdin": record.config.AttachStdin,
        "OpenStderr": record.config.AttachStderr,
        "OpenStdout": record.config.AttachStdout,
        "CanRemove": record.can_remove,
        "ContainerID": record.container_id,
        "DetachKeys": record.config.DetachKeys,
        "Pid": record.pid,
    }


async def resize(ctx: Context) -> Response:
    height, width = dimensions(ctx)
    engine_exec.find_exec(ctx.engine, ctx.name)
    await engine_exec.resize_exec(ctx.engine, ctx.name, height, width)
    return Response(200)


async def start(ctx: Context) -> Response | None:
    """Run it: in the background (`Detach`), or over this connection, where errors then come in band."""
    asked = await ctx.json(optional=True)
    options = convert(StartOptions, asked, go_type="container.ExecStartOptions", at="ExecStartOptions")
    engine_exec.find_exec(ctx.engine, ctx.name)  # an unknown one is still told as a 404
    size = options.ConsoleSize if options.Tty and ctx.version >= _CONSOLE_SIZE_SINCE else None
    if options.Detach:
        await engine_exec.start_exec(ctx.engine, ctx.name, detach=True, tty=options.Tty, console_size=size)
        return Response(200)
    conversation = Conversation(HttpHijack(ctx.request), ctx.version)
    try:
        await engine_exec.start_exec(
            ctx.engine, ctx.name, detach=False, tty=options.Tty, console_size=size, connection=conversation
        )
    except WherryError as error:
        log.info("exec %s failed: %s", ctx.name, error)
        await _tell_in_band(conversation, errors.explain(error)[1], tty=options.Tty)
    return None


async def _tell_in_band(conversation: Conversation, message: str, *, tty: bool) -> None:
    if not conversation.accepted:
        await conversation.accept(RAW_STREAM if tty else MULTIPLEXED_STREAM)
    text = f"{message}\r\n".encode()
    await conversation.write(text if tty else frame(STDOUT, text))
    await conversation.close()
