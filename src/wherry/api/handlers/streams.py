"""/containers/{name}/logs, wait, attach, attach/ws: replies that last."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from wherry.api import decode, errors
from wherry.api.context import Context, json_bytes
from wherry.api.conversation import MULTIPLEXED_SINCE, Conversation, Takeover
from wherry.engine import attach as engine_attach
from wherry.engine import logs as engine_logs
from wherry.engine import wait as engine_wait
from wherry.errors import InvalidArgument, WherryError
from wherry.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, HttpHijack
from wherry.http.message import Last, Response
from wherry.http.websocket import NotWebSocket, WebSocketHijack

log = logging.getLogger(__name__)


async def logs(ctx: Context) -> Response:
    """GET /containers/{name}/logs: framed without a terminal, raw with one; the head goes out at once."""
    stdout, stderr = ctx.flag("stdout"), ctx.flag("stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    query = ctx.request.query
    options = engine_logs.LogOptions(
        follow=ctx.flag("follow"),
        tail=_tail(ctx.text("tail")),
        since_ns=decode.timestamp(query, "since"),
        until_ns=decode.timestamp(query, "until"),
        stdout=stdout,
        stderr=stderr,
        timestamps=ctx.flag("timestamps"),
        details=ctx.flag("details"),
        joined=_shows_bytes(ctx),
    )
    tty = ctx.engine.containers.lookup(ctx.name).record.config.Tty
    stream = await engine_logs.logs(ctx.engine, ctx.name, options)
    told = not tty and ctx.version >= MULTIPLEXED_SINCE
    return Response(200, content_type=MULTIPLEXED_STREAM if told else RAW_STREAM, stream=stream, watch=options.follow)


async def clear_logs(ctx: Context) -> Response:
    """DELETE /containers/{name}/logs."""
    await engine_logs.clear(ctx.engine, ctx.name)
    return Response(204)


# Of programs that only pass the payloads on. Others may take each frame for a line, since Docker sends it so.
_PASS_ON = ("Docker-Client/", "wherry")


def _shows_bytes(ctx: Context) -> bool:
    """Whether the client does not care how lines are divided into frames."""
    return ctx.request.headers.get("user-agent", "").startswith(_PASS_ON)


def _tail(value: str) -> int | None:
    """How many lines from the end; None means all, as does anything that is no number."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


async def wait(ctx: Context) -> Response:
    """POST /containers/{name}/wait: the head tells the client that we are waiting, the body what came of it. The CLI
    starts the container only after the head."""
    waiter = await engine_wait.wait(ctx.engine, ctx.name, ctx.text("condition") or "not-running")
    return Response(200, content_type="application/json", stream=_outcome(waiter), watch=True)


async def _outcome(waiter: Any) -> AsyncIterator[bytes]:
    try:
        status, error = await waiter.result()
    except asyncio.CancelledError:
        waiter.cancel()
        raise
    outcome: dict[str, Any] = {"StatusCode": status}
    if error:
        outcome["Error"] = {"Message": error}
    yield Last(json_bytes(outcome))


async def attach(ctx: Context) -> None:
    """POST /containers/{name}/attach. Even errors are written by hand: Docker has left HTTP by then."""
    takeover = HttpHijack(ctx.request)
    try:
        await _attach(ctx, takeover, mux=True)
    except WherryError as error:
        status, message = errors.explain(error)
        await takeover.refuse(f"{status.value} {status.phrase}", message)
        await takeover.close()


async def attach_websocket(ctx: Context) -> Response | None:
    """GET /containers/{name}/attach/ws: the same in messages, never multiplexed."""
    try:
        await _attach(ctx, WebSocketHijack(ctx.request), mux=False)
    except NotWebSocket:
        return Response(400, b"not websocket protocol")
    return None


async def _attach(ctx: Context, takeover: Takeover, *, mux: bool) -> None:
    """Raises only what can still be answered: an error after the first byte just ends the conversation."""
    options = engine_attach.AttachOptions(
        stream=ctx.flag("stream"),
        logs=ctx.flag("logs"),
        stdin=ctx.flag("stdin"),
        stdout=ctx.flag("stdout"),
        stderr=ctx.flag("stderr"),
        detach_keys=ctx.text("detachKeys"),
        mux=mux,
    )
    try:
        await engine_attach.attach(ctx.engine, ctx.name, options, Conversation(takeover, ctx.version))
    except WherryError as error:
        if not takeover.accepted:
            raise
        log.info("attach to %s ended: %s", ctx.name, error)
        await takeover.close()
