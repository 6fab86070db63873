"""Serves HTTP in a process that has its own event loop and signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI

from rollwave.errors import ConfigurationError
from rollwave.log import get_logger

DRAIN_SECONDS = 10
"""Maximum time for requests in progress after the server was told to stop."""

_log = get_logger("api")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # the process handles signals itself


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until cancelled, then finish the requests in progress. Port 0 chooses a free port.

    ``app.state.stopping``: functions that end requests which would not end by themselves, such as streams.

    Raises:
        ConfigurationError: this process cannot listen at this address.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config)
    _log.info("api_listening", host=host, port=listener.getsockname()[1])
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        for stop in app.state.stopping:
            stop()
        await serving
        raise
    finally:
        listener.close()


async def serve_until(stop: asyncio.Event, app: FastAPI, host: str, port: int) -> None:
    """Serve until ``stop`` is set, then finish the requests in progress.

    Raises:
        ConfigurationError: this process cannot listen at this address.
    """
    serving = asyncio.create_task(serve(app, host, port))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            hint="Stop the program that uses the port, or choose another with --port.",
        ) from error
    return listener
