"""wherryd: configuration, one engine, its listeners, signals."""

import asyncio
import faulthandler
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable

from wherry import __version__
from wherry.api.router import build_app
from wherry.daemon import config as configuration
from wherry.daemon.config import DaemonConfig
from wherry.daemon.listeners import Listener, close_listeners, open_listeners
from wherry.daemon.logs import set_up_logging
from wherry.daemon.notify import notify
from wherry.daemon.options import parse_flags, usage
from wherry.daemon.wiring import engine_config, server_tls
from wherry.engine.engine import Engine
from wherry.errors import Conflict, WherryError
from wherry.http.server import Server
from wherry.linux import malloc

log = logging.getLogger("wherry.daemon")

_KEPT = 2 << 20  # the buffers of a stream of logs


def main(arguments: list[str] | None = None) -> int:
    """The command `wherryd`: returns the exit code (0 after a clean shutdown, 1 when it can't run, 2 for bad usage)."""
    try:
        flags, actions = parse_flags(sys.argv[1:] if arguments is None else arguments)
    except WherryError as error:
        print(f"{error}", file=sys.stderr)
        return 125
    if "help" in actions:
        print(usage(), end="")
        return 0
    if "version" in actions:
        print(f"wherryd version {__version__}")
        return 0
    try:
        config = configuration.load(flags, actions)
        if "validate" in actions:
            print("configuration OK")
            return 0
        set_up_logging(config["log-level"], config["log-format"], debug=config["debug"])
        if os.geteuid() != 0:
            print("wherryd needs root for now", file=sys.stderr)
            return 1
        malloc.keep_freed(_KEPT)
        return asyncio.run(serve(config))
    except WherryError as error:
        print(f"failed to start daemon: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a directory that can't be made, a socket that can't be bound
        log.debug("an operating system error", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        print(f"failed to start daemon: {where}{error.strerror or error}", file=sys.stderr)
        return 1


async def serve(config: DaemonConfig) -> int:
    """Run the engine until SIGTERM or SIGINT. Containers go on afterwards.

    The order matters: the sockets open last, when the engine can answer, and close first, so that nobody is accepted
    whom nothing serves.
    """
    faulthandler.register(signal.SIGUSR1)  # prints every thread's stack, whatever the loop is doing
    _check_pidfile(config["pidfile"])
    engine = await Engine.open(engine_config(config))
    if text := configuration.init_warning(config["init-path"]):
        engine.warn(text)
    _raise_descriptor_limit()
    listeners: list[Listener] = []
    try:
        listeners = open_listeners(config)
        server = Server(build_app(engine).handle)
        for listener in listeners:
            await server.listen(listener.socket, tls=server_tls(config) if listener.tls else None)
            log.info("API listen on %s", listener.address)
        _write_pidfile(config["pidfile"])
        stop = asyncio.Event()
        _on_signals(stop.set, lambda: _reload(config, engine))
        notify("READY=1", f"MAINPID={os.getpid()}")
        log.info("daemon has completed initialization, version %s", __version__)
        await stop.wait()
        notify("STOPPING=1")
        log.info("processing signal: shutting down; containers go on")
        await server.close(config["shutdown-timeout"])
    finally:
        close_listeners(listeners)
        await engine.close()
        _remove_pidfile(config["pidfile"])
    return 0


def _raise_descriptor_limit() -> None:
    """As many descriptors as we may have: each attached client, followed log and container holds some. The spawner
    runs already and keeps the limit we were given, which containers inherit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)


def _reload(config: DaemonConfig, engine: Engine) -> None:
    notify("RELOADING=1")
    try:
        fresh, refused = configuration.reload(config)
    except WherryError as error:
        log.error("configuration not reloaded: %s", error)
    else:
        config.values, config.given = fresh.values, fresh.given
        engine.reconfigure(engine_config(config))
        set_up_logging(config["log-level"], config["log-format"], debug=config["debug"])
        if refused:
            log.warning("these need a restart to change: %s", ", ".join(refused))
        log.info("configuration reloaded")
    notify("READY=1")


def _check_pidfile(path: str) -> None:
    """Raise `Conflict` when the file names another daemon that runs; a number left behind may be anybody's by now."""
    pid = _pid_in(path)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
    except OSError:
        return
    if pid != os.getpid() and (b"wherryd" in command or b"wherry.daemon" in command):
        raise Conflict(f"process with PID {pid} is still running: use another --pidfile than {path}")


def _pid_in(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 0


def _write_pidfile(path: str) -> None:
    if path:
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")


def _remove_pidfile(path: str) -> None:
    if path and _pid_in(path) == os.getpid():
        os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
