"""The default profile is Docker's, and profiles in Docker's format resolve as Docker resolves them."""

import json
from pathlib import Path

import pytest

from wherry.runtime.seccomp import docker

ORIGIN = json.loads((Path(__file__).parent.parent / "data" / "seccomp-docker-default.json").read_text())


def canonical(rule):
    return json.dumps(
        {key: sorted(value) if key == "names" else value for key, value in rule.items() if value and key != "comment"},
        sort_keys=True,
    )


def test_content_equals_dockers():
    ours = docker.default_profile()
    assert sorted(map(canonical, ours["syscalls"])) == sorted(map(canonical, ORIGIN["syscalls"]))
    assert {key: ours[key] for key in ours if key != "syscalls"} == {
        key: ORIGIN[key] for key in ORIGIN if key != "syscalls"
    }


def names(profile):
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_capabilities_open_their_calls():
    plain = names(docker.profile_for([], arch="x86_64", kernel=(6, 1)))
    admin = names(docker.profile_for(["CAP_SYS_ADMIN"], arch="x86_64", kernel=(6, 1)))
    assert {"mount", "unshare", "setns", "bpf", "clone3"} <= admin - plain
    assert not {"keyctl", "io_uring_setup", "userfaultfd", "pivot_root", "kexec_load"} & admin
    assert names(docker.profile_for(["CAP_SYS_CHROOT"], arch="x86_64", kernel=(6, 1))) - plain == {"chroot"}


def test_kernel_and_architecture_are_heeded():
    assert "ptrace" not in names(docker.profile_for([], arch="x86_64", kernel=(4, 7)))
    assert "ptrace" in names(docker.profile_for([], arch="x86_64", kernel=(4, 8)))
    arm = docker.profile_for([], arch="aarch64", kernel=(6, 1))
    assert "set_tls" in names(arm)
    assert "arch_prctl" not in names(arm)
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"], "archMap": [{}]}, "both 'architectures' and"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"name": "read", "names": ["write"], "action": "SCMP_ACT_ALLOW"}],
            },
            "both 'name' and 'names'",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4"}}],
            },
            'invalid kernel version: "4"',
        ),
        ({}, "no defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}, "no action"),
    ],
)
def test_contradictions_are_refused(profile, text):
    with pytest.raises(ValueError, match=text):
        docker.resolve(profile, [], "x86_64", (6, 1))


def test_a_profile_with_single_names_and_flat_architectures():
    old = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "args": None}],
    }
    assert docker.resolve(old, [], "x86_64", (6, 1)) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
