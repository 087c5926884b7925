"""Restate: a server with a log of its own, which calls the services over HTTP.

It stores nothing in PostgreSQL. Its server has its default durability: one replica, and a write to
the log is synced before it counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks import programs
from benchmarks.bodies import now
from benchmarks.engines.protocol import Engine, Program, Start
from benchmarks.waiting import until

IN_FLIGHT = 200
"""Requests at once."""

JSON = {"content-type": "application/json"}

CONFIGURATION = """
roles = ["http-ingress", "admin", "worker", "log-server", "metadata-server"]
node-name = "bench"
cluster-name = "bench"
listen-mode = "tcp"
bind-ip = "127.0.0.1"
bind-port = {node}
advertised-address = "http://127.0.0.1:{node}/"
disable-telemetry = true
log-filter = "error"
[ingress]
bind-port = {ingress}
[admin]
bind-port = {admin}
disable-web-ui = true
"""


class Restate(Engine):
    """A request is an execution, and is timed from when it is sent until its answer is there."""

    self_contained = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._ingress = ""

    def prepare(self) -> None:
        pass

    @contextmanager
    def starting(self) -> Generator[Start]:
        """The answer to `send` comes once the invocation is stored."""
        connection = HTTPConnection(urlsplit(self._ingress).netloc)

        def start(program: Program, workflow: int) -> None:
            path = f"/Bench/{program.shape}/send"
            connection.request("POST", path, json.dumps(_order(workflow, program)), JSON)
            connection.getresponse().read()

        yield start
        connection.close()

    @contextmanager
    def working(self) -> Generator[None]:
        with _running() as self._ingress:
            yield

    def finished(self) -> int:
        raise NotImplementedError("Restate is asked by requests alone")

    def run(self, program: Program, count: int) -> float:
        with self.working():
            asyncio.run(_requests(self._ingress, Program(program.shape), 10))
            return asyncio.run(_requests(self._ingress, program, count))


def _order(workflow: int, program: Program) -> dict[str, int]:
    return {"workflow": workflow, "bodies": program.bodies}


async def _requests(ingress: str, program: Program, count: int) -> float:
    """Seconds that so many requests take."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=IN_FLIGHT),
        timeout=aiohttp.ClientTimeout(total=300),
    ) as session:

        async def one(workflow: int) -> None:
            async with session.post(
                f"{ingress}/Bench/{program.shape}", json=_order(workflow, program)
            ) as response:
                response.raise_for_status()

        began = now()
        await asyncio.gather(*map(one, range(count)))
        return now() - began


@contextmanager
def _running() -> Generator[str]:
    """A server and the services, both in processes of their own; gives the address of requests."""
    directory = Path(tempfile.mkdtemp(prefix="rowtine-bench-"))
    ports = dict(zip(("node", "ingress", "admin", "service"), _free_ports(4), strict=True))
    configuration = directory / "restate.toml"
    configuration.write_text(CONFIGURATION.format(**ports))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        log = stack.enter_context((directory / "log").open("w"))
        server = [programs.restate_server() or "restate-server", "-c", str(configuration)]
        service = [
            *(sys.executable, "-m", "hypercorn", "-b", f"127.0.0.1:{ports['service']}"),
            *("--backlog", "1000", "-w", "1", "benchmarks.engines.restate_service:app"),
        ]
        environment = {**os.environ, "DO_NOT_TRACK": "1", "RESTATE_BASE_DIR": str(directory)}
        for command in (server, service):
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        address = f"http://127.0.0.1:{ports['admin']}/deployments"
        uri = {"uri": f"http://127.0.0.1:{ports['service']}"}
        until(lambda: _answers(address, uri), pause=0.5, seconds=60)
        ingress = f"http://127.0.0.1:{ports['ingress']}"
        first = {"workflow": 0, "bodies": 0}
        until(lambda: _answers(f"{ingress}/Bench/steps", first), pause=0.5, seconds=60)
        yield ingress


def _answers(address: str, body: Any) -> bool:
    try:
        _post(address, body)
    except OSError:
        return False
    return True


def _post(address: str, body: Any) -> None:
    request = urllib.request.Request(address, json.dumps(body).encode(), JSON)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        response.read()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all of them bound before the first is given back."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
