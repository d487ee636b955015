"""Record what Docker does: `python -m tests.files.record /run/docker.sock`."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.host import busybox_tar

from . import cases

GOLDEN = Path(__file__).parent / "data" / "docker-28.json"


def record(path: str) -> dict[str, object]:
    """Play everything against the engine behind the socket `path`, and clean up."""
    command = ["docker", "-H", f"unix://{path}", "import", "-", cases.IMAGE]
    subprocess.run(command, input=busybox_tar(), check=True, capture_output=True)
    lab = cases.Lab(path)
    try:
        return cases.play(lab) | cases.differ(lab)
    finally:
        lab.close()
        for volume in ("wf-v", "wf-r", "wf-m"):
            lab.client.call("DELETE", f"/volumes/{volume}")


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(record(sys.argv[1]), indent=1, sort_keys=True) + "\n")
