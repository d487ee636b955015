"""Questions to registries end with whoever asked them."""

import asyncio
import threading

import pytest

from wherry.engine.config import EngineConfig
from wherry.engine.transfers import Transfers
from wherry.registry.cancel import Cancelled


class Question:
    """Waits until it is broken off."""

    def __init__(self):
        self.asked, self.ended = asyncio.Event(), threading.Event()
        self.loop = asyncio.get_running_loop()

    def __call__(self, cancel):
        self.loop.call_soon_threadsafe(self.asked.set)
        try:
            cancel.wait(60)
        except Cancelled:
            self.ended.set()
            raise


@pytest.mark.parametrize("how", ["nobody waits", "the daemon goes"])
def test_a_question_is_broken_off(how):
    async def scenario():
        transfers, question = Transfers(EngineConfig()), Question()
        asking = asyncio.create_task(transfers.ask(question))
        await question.asked.wait()
        if how == "nobody waits":
            asking.cancel()
        else:
            transfers.close()
        with pytest.raises((asyncio.CancelledError, Cancelled)):
            await asking
        assert await asyncio.to_thread(question.ended.wait, 30)
        assert not transfers._running
        transfers.close()

    asyncio.run(scenario())
