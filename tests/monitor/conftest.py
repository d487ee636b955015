import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.monitor.lab import Lab, make_layer

Scenario = Callable[[Lab], Awaitable[None]]


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_layer(tmp_path_factory.mktemp("layer") / "root")


@pytest.fixture
def play(tmp_path: Path, layer: Path) -> Callable[[Scenario], None]:
    """Run a scenario in a lab of its own; afterwards nothing may be left."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            lab = Lab(tmp_path, layer)
            try:
                await scenario(lab)
            finally:
                await lab.close()

        asyncio.run(main())

    return run
