"""A view that nobody closes."""

import os
import threading

from wherry.engine.files.view import View
from wherry.linux.private_mounts import PrivateMounts


def test_a_lost_view_gives_back_on_a_thread_of_its_own() -> None:
    given_back = threading.Event()
    threads: list[int] = []

    def let_go() -> None:
        threads.append(threading.get_ident())
        given_back.set()

    view = View(PrivateMounts(root=os.open("/", os.O_PATH), namespace=os.open("/", os.O_PATH)), [], let_go)
    del view
    assert given_back.wait(30)
    assert threads != [threading.get_ident()]
