"""Cgroups of the tests' own, and processes to put into them."""

import itertools
import os
import signal

import pytest

from wherry.linux import cgroupfs
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.cgroups.unified import controllers

HOST = cgroupfs.mounted()
DRIVERS = {}
if HOST.v1 and not HOST.unified:
    DRIVERS["v1"] = HOST
if HOST.v2:
    DRIVERS["v2"] = cgroupfs.Hierarchies({}, HOST.v2)
_numbers = itertools.count()


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.root)


@pytest.fixture(params=list(DRIVERS))
def hierarchies(request):
    """Each driver that can be tried here: on a hybrid host v1, and v2 on the unified hierarchy with what it has."""
    return DRIVERS[request.param]


@pytest.fixture
def cgroup(hierarchies):
    """A cgroup not yet created; gone afterwards, with its processes and its parent."""
    parent = f"/wherry-test-{os.getpid()}"
    made = open_cgroup(f"{parent}/c{next(_numbers)}", hierarchies)
    yield made
    made.thaw()
    inside = made.pids()
    made.kill()
    reap(inside)
    made.remove()
    open_cgroup(parent, hierarchies).remove()


@pytest.fixture
def need(hierarchies):
    """need("memory"): skip where this hierarchy has no such controller."""
    have = frozenset(hierarchies.v1) | (controllers(hierarchies.v2) if hierarchies.unified else frozenset())

    def check(*names):
        for name in names:
            if name not in have:
                pytest.skip(f"no {name} controller here")

    return check


@pytest.fixture
def spawn(cgroup):
    """spawn(function): run it in a child inside the cgroup, after it has entered; returns the pid."""

    def start(function=signal.pause):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                cgroup.attach(0)
                os.write(write, b".")
                os.close(write)
                code = function() or 0
            finally:
                os._exit(code & 0xFF)
        os.close(write)
        assert os.read(read, 1) == b".", "the child could not enter the cgroup"
        os.close(read)
        return pid

    return start


def finish(pid):
    """The exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reap(pids):
    """Wait for those of `pids` that are children of ours and not waited for yet."""
    for pid in pids:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass


def value(cgroup, controller, name):
    """Content of a file of the cgroup in either version."""
    point = cgroup_point(cgroup, controller)
    return cgroupfs.read_text(f"{point}{cgroup.path}/{name}").strip()


def cgroup_point(cgroup, controller):
    if hasattr(cgroup, "directory"):
        return cgroup.directory[: -len(cgroup.path)]
    return HOST.v1[controller]
