"""Run a command on a host that lacks something: `poor_host.py WHAT... -- COMMAND...`.

nftables   a kernel without nf_tables: a seccomp filter refuses sockets of NETLINK_NETFILTER
cgroups    nothing of /sys/fs/cgroup is mounted, in a mount namespace of its own
ro-cgroups /sys/fs/cgroup and all below it is read-only
no-MEMORY  the v1 hierarchy of that controller is not mounted
net-admin  without CAP_NET_ADMIN: no links, no rules
"""

import os
import sys

from wherry.linux import caps
from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.seccomp import load_filter
from wherry.runtime.seccomp import compile_profile

AF_NETLINK, NETLINK_NETFILTER, EPROTONOSUPPORT = 16, 12, 93
WITHOUT_NETFILTER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPROTONOSUPPORT,
            "args": [
                {"index": 0, "value": AF_NETLINK, "op": "SCMP_CMP_EQ"},
                {"index": 2, "value": NETLINK_NETFILTER, "op": "SCMP_CMP_EQ"},
            ],
        }
    ],
}


def _cgroup_mounts():
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file if "/sys/fs/cgroup" in line.split()[4]]


def take_away(what: str) -> None:
    if what == "nftables":
        load_filter(compile_profile(WITHOUT_NETFILTER))
        return
    if what == "net-admin":
        caps.drop_bounding(caps.mask(["CAP_NET_ADMIN"]))
        return
    ns.unshare(ns.CLONE_NEWNS)
    m.mount("", "/", "", m.MS_PRIVATE | m.MS_REC)
    if what == "cgroups":
        for point in reversed(_cgroup_mounts()):
            m.umount2(point, m.MNT_DETACH)
    elif what == "ro-cgroups":
        for point in _cgroup_mounts():
            m.mount("", point, "", m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)
    elif what.startswith("no-"):
        m.umount2(f"/sys/fs/cgroup/{what[3:]}", m.MNT_DETACH)
    else:
        raise ValueError(what)


if __name__ == "__main__":
    split = sys.argv.index("--")
    for item in sys.argv[1:split]:
        take_away(item)
    command = sys.argv[split + 1 :]
    sys.stdout.flush()
    os.execvp(command[0], command)
