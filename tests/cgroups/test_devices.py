"""Device rules: what the folded list says, and what the kernel then allows (v1 files, v2 program)."""

import errno
import os
import stat

import pytest

from wherry.linux import bpf
from wherry.runtime.cgroups.devices import Device, DeviceAccess, access_of, legacy_writes, parse_list

from .conftest import finish

DENY_ALL = {"allow": False, "access": "rwm"}


def allow(kind, major, minor, access="rwm"):
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def deny(kind, major, minor, access="rwm"):
    return {**allow(kind, major, minor, access), "allow": False}


def fold(*rules):
    access = access_of(rules, with_defaults=False)
    return access.default_allow, {
        str(device): "".join(sorted(letters)) for device, letters in access.exceptions.items()
    }


def test_a_list_is_an_allow_list_without_saying_so():
    """GHSA-g54h-m393-cpwq: rules that do not begin with deny-all."""
    assert fold() == (False, {})
    assert fold(allow("c", 1, 3)) == (False, {"c 1:3": "mrw"})
    assert fold(DENY_ALL, allow("c", 1, 3)) == (False, {"c 1:3": "mrw"})


def test_rules_add_up_in_order():
    assert fold(allow("c", 1, 3, "r"), allow("c", 1, 3, "w"), allow("b", 8, -1, "m")) == (
        False,
        {"c 1:3": "rw", "b 8:*": "m"},
    )
    assert fold(allow("c", 1, 3), deny("c", 1, 3, "w")) == (False, {"c 1:3": "mr"})
    assert fold(allow("c", 1, 3), allow("c", 1, 5), deny("c", 1, -1)) == (False, {})
    assert fold(allow("c", 1, 3), DENY_ALL, allow("c", 1, 5)) == (False, {"c 1:5": "mrw"})
    assert fold({"allow": True, "access": "rwm"}) == (True, {})
    assert fold({"allow": True, "access": "rwm"}, deny("c", 1, 5)) == (True, {"c 1:5": "mrw"})
    assert fold({"allow": True, "type": "a", "access": "r"}) == (False, {"b *:*": "r", "c *:*": "r"})


def test_dockers_denial_of_fuse_stays():
    rules = [DENY_ALL, deny("c", *FUSE)]
    access = access_of(rules)
    assert access.exceptions[Device("c", -1, -1)] == frozenset("m")
    assert not any(device.minor == 229 for device in access.exceptions)


@pytest.mark.parametrize(
    "rules",
    [
        [allow("c", 1, -1), deny("c", 1, 3)],
        [{"allow": True, "access": "rwm"}, deny("c", 1, -1), allow("c", 1, 3)],
    ],
)
def test_holes_cannot_be_cut(rules):
    with pytest.raises(ValueError, match="punch a hole"):
        access_of(rules)


@pytest.mark.parametrize("rule", [allow("x", 1, 1), allow("c", 1, 1, "rx")])
def test_malformed_rules(rule):
    with pytest.raises(ValueError, match="invalid device cgroup rule"):
        access_of([rule])


def test_changing_a_v1_list_takes_nothing_away_in_between():
    current = parse_list("c 1:3 rwm\nc 1:5 r\nb *:* m\n")
    target = access_of([allow("c", 1, 5), allow("b", -1, -1, "m")], with_defaults=False)
    assert legacy_writes(current, target) == [
        ("devices.allow", "c 1:5 wm"),
        ("devices.deny", "c 1:3 rwm"),
    ]
    everything = DeviceAccess(True, {})
    assert legacy_writes(parse_list("a *:* rwm\n"), target)[0] == ("devices.deny", "a")
    assert legacy_writes(current, everything) == [("devices.allow", "a")]


NULL, ZERO = (1, 3), (1, 5)
# A device that exists everywhere and is in nobody's default list.
KMSG = (1, 11)
FUSE = (10, 229)


@pytest.fixture
def nodes(tmp_path):
    """Device nodes by number, where the temporary directory lets nodes be opened."""
    made = {}
    for number in (NULL, ZERO, KMSG, FUSE, (253, 1)):
        made[number] = str(tmp_path / "-".join(map(str, number)))
        os.mknod(made[number], stat.S_IFCHR | 0o666, os.makedev(*number))
    try:
        os.close(os.open(made[NULL], os.O_RDWR))
    except PermissionError:
        pytest.skip("device nodes do not work in the temporary directory")
    return made


def outcome(spawn, path, flags):
    """errno of opening `path` inside the cgroup, 0 when it works."""

    def attempt():
        try:
            os.close(os.open(path, flags))
        except OSError as error:
            return error.errno
        return 0

    return finish(spawn(attempt))


def test_default_rules_are_enforced(cgroup, need, spawn, nodes, hierarchies):
    if not hierarchies.unified:
        need("devices")
    cgroup.create({"devices": [DENY_ALL, allow("c", *NULL, "r"), deny("c", *FUSE)]})
    assert outcome(spawn, nodes[NULL], os.O_RDWR) == 0
    assert outcome(spawn, nodes[ZERO], os.O_RDONLY) == 0
    assert outcome(spawn, nodes[FUSE], os.O_RDWR) == errno.EPERM
    assert outcome(spawn, nodes[(253, 1)], os.O_RDONLY) == errno.EPERM


def test_read_does_not_mean_write(cgroup, need, spawn, nodes, hierarchies):
    if not hierarchies.unified:
        need("devices")
    log = nodes[KMSG]
    cgroup.create({"devices": [allow("c", *KMSG, "r")]})
    assert outcome(spawn, log, os.O_RDONLY) == 0
    assert outcome(spawn, log, os.O_WRONLY) == errno.EPERM
    assert outcome(spawn, log, os.O_RDWR) == errno.EPERM


def test_mknod_is_harmless_and_allowed(cgroup, need, spawn, nodes, hierarchies):
    if not hierarchies.unified:
        need("devices")
    cgroup.create({})
    made = os.path.dirname(nodes[NULL]) + "/disk"

    def attempt():
        os.mknod(made, stat.S_IFBLK | 0o600, os.makedev(8, 0))

    assert finish(spawn(attempt)) == 0
    assert outcome(spawn, made, os.O_RDONLY) == errno.EPERM


def test_allow_all_with_exception(cgroup, need, spawn, nodes, hierarchies):
    if not hierarchies.unified:
        need("devices")
    cgroup.create({"devices": [{"allow": True, "access": "rwm"}, deny("c", *KMSG, "w")]})
    assert outcome(spawn, nodes[KMSG], os.O_RDONLY) == 0
    assert outcome(spawn, nodes[KMSG], os.O_RDWR) == errno.EPERM
    assert outcome(spawn, nodes[FUSE], os.O_RDONLY) in (0, errno.ENOENT, errno.ENODEV, errno.ENXIO)


def test_update_replaces_the_rules(cgroup, need, spawn, nodes, hierarchies):
    if not hierarchies.unified:
        need("devices")
    log = nodes[KMSG]
    cgroup.create({"devices": [allow("c", *KMSG)]})
    assert outcome(spawn, log, os.O_RDONLY) == 0
    cgroup.update({"devices": [DENY_ALL]})
    assert outcome(spawn, log, os.O_RDONLY) == errno.EPERM
    assert outcome(spawn, nodes[NULL], os.O_RDWR) == 0
    cgroup.update({"pids": {}})
    assert outcome(spawn, log, os.O_RDONLY) == errno.EPERM
    if hierarchies.unified:
        assert len(bpf.attached_device_programs(hierarchies.v2 + cgroup.path)) == 1


def test_refused_program_tells_the_verifiers_reason():
    with pytest.raises(OSError, match=r"bpf\(PROG_LOAD\).*(exit|R0|jump|insn)"):
        bpf.load_device_program(bpf.device_program(True, [])[:-8])
