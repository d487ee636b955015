"""Ask a real Docker what `transfer_cases` asks, and write its answers down: `python -m tests.e2e.record_transfers
unix:///var/run/docker.sock`, where its loopback is ours."""

import http.client
import json
import socket
import sys
from pathlib import Path

from tests.e2e.transfer_cases import answers, clean_up
from tests.registry.servers import PythonRegistry

RECORDING = Path(__file__).parent / "data" / "transfers.json"


def caller(address: str):
    """`call(method, path)` of the engine at a unix socket."""

    def call(method: str, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(address.removeprefix("unix://"))
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return call


if __name__ == "__main__":
    with PythonRegistry() as registry:
        call = caller(sys.argv[1])
        try:
            RECORDING.write_text(json.dumps(answers(call, registry), indent=1) + "\n")
        finally:
            clean_up(call, registry)
