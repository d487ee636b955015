"""stats, system df and the prunes, through the docker CLI and ours."""

import json
import os
import pty
import re
import sys
import time

import pytest

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def busy(host):
    """A container that burns CPU and holds memory, one that does nothing, one that never ran."""
    script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=8 2>/dev/null; echo held; while :; do :; done"
    host.docker("run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50", "busybox", "sh", "-c", script)
    host.wait_until(lambda: host.out("logs", "busy") == "held", "the memory")
    host.docker("create", "--name", "never", "busybox", "true")
    yield host
    host.docker("rm", "-f", "busy", "never")


def sample(host, name, query="stream=0"):
    status, reading = host.api("GET", f"/v1.51/containers/{name}/stats?{query}")
    assert status == 200, reading
    return reading


def test_a_sample_measures_what_the_container_does(busy):
    reading = sample(busy, "busy")
    held = f"busy holds 8 MiB\n{reading['memory_stats']}"
    assert 8 * MIB <= reading["memory_stats"]["usage"] <= 64 * MIB, held
    assert reading["memory_stats"]["limit"] == 64 * MIB
    assert reading["pids_stats"] == {"current": 1, "limit": 50}
    cpu, before = reading["cpu_stats"], reading["precpu_stats"]
    assert cpu["cpu_usage"]["total_usage"] > before["cpu_usage"]["total_usage"] > 0
    assert cpu["system_cpu_usage"] > before["system_cpu_usage"] > 0
    assert cpu["online_cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert set(reading["networks"]) == {"eth0"}
    assert reading["name"] == "/busy"


def test_one_shot_does_not_wait_for_a_second_sample(busy):
    reading = sample(busy, "busy", "stream=0&one-shot=1")
    assert reading["preread"] == "0001-01-01T00:00:00Z"
    assert reading["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    status, error = busy.api("GET", "/containers/busy/stats?stream=1&one-shot=1")
    assert (status, error) == (400, {"message": "cannot have stream=true and one-shot=true"})


def test_a_container_that_does_not_run_has_docker_s_empty_sample(busy):
    reading = sample(busy, "never")
    identity = reading.pop("id"), reading.pop("name")
    assert identity[1] == "/never"
    nothing = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
    cpu = {
        "cpu_usage": nothing,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    blkio = "service_bytes serviced queue service_time wait_time merged time"
    assert reading == {
        "read": "0001-01-01T00:00:00Z",
        "preread": "0001-01-01T00:00:00Z",
        "pids_stats": {},
        "blkio_stats": dict.fromkeys([f"io_{word}_recursive" for word in blkio.split()] + ["sectors_recursive"]),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu,
        "precpu_stats": cpu,
        "memory_stats": {},
    }


def test_a_host_network_has_no_interfaces_of_its_own(host, name):
    host.docker("run", "-d", "--name", name, "--network", "host", "busybox", "sleep", "100")
    assert "networks" not in sample(host, name, "stream=0&one-shot=1")


def test_the_stream_ends_with_the_container(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "100")
    stream = host.popen("curl", "-sN", "--unix-socket", host.address.removeprefix("unix://"),
                        f"http://d/v1.51/containers/{name}/stats")  # fmt: skip
    first = json.loads(stream.stdout.readline())
    host.docker("rm", "-f", name)
    rest, _ = stream.communicate(timeout=60)
    assert first["memory_stats"]["usage"] > 0
    assert all(json.loads(line)["id"] == first["id"] for line in rest.splitlines())


@pytest.mark.parametrize("client", ["docker", "wherry"])
def test_stats_on_the_command_line(busy, client):
    run = getattr(busy, client)
    lines = run("stats", "--no-stream", "busy", "never").stdout.splitlines()
    assert re.split(r"  +", lines[0].strip()) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    shown = re.split(r"  +", lines[1].strip())
    assert shown[1] == "busy"
    assert float(shown[2].rstrip("%")) > 1
    assert shown[3].endswith("/ 64MiB")
    assert shown[7] == "1"
    assert re.split(r"  +", lines[2].strip())[1:] == ["never", "0.00%", "0B / 0B", "0.00%", "0B / 0B", "0B / 0B", "0"]
    missing = run("stats", "--no-stream", "busy", "nobody", check=False)
    assert missing.returncode == 1
    assert "No such container: nobody" in missing.stderr


def test_our_stats_follow_what_starts_and_ends(busy):
    watch = busy.popen("timeout", "60", *our_command(), "stats", "--format", "{{.Name}}")
    try:
        wait_for_line(watch, "busy")
        busy.docker("run", "-d", "--name", "late", "busybox", "sleep", "100")
        wait_for_line(watch, "late")
        busy.docker("rm", "-f", "late")
        wait_for_screen(watch, lambda names: "busy" in names and "late" not in names)
    finally:
        watch.terminate()
        watch.communicate()


def our_command():
    return sys.executable, "-m", "wherry.cli.main"


def wait_for_line(process, wanted):
    wait_for_screen(process, lambda names: wanted in names)


def wait_for_screen(process, right):
    """Read screens, which begin with "home", until one is right."""
    names: set[str] = set()
    for line in iter(process.stdout.readline, b""):
        text = line.decode()
        if "\x1b[H" in text:
            if right(names):
                return
            names = set()
        names.add(re.sub(r"\x1b\[[HKJ]", "", text).strip())
    raise AssertionError(process.stderr.read())


# -- df


def test_disk_usage_counts_every_kind(own_host):
    host = own_host
    host.docker("run", "--name", "writer", "-v", "data:/data", "-v", "/anonymous", "busybox", "sh", "-c",
                "head -c 3000000 /dev/zero > /own; head -c 2000000 /dev/zero > /data/file")  # fmt: skip
    status, usage = host.api("GET", "/v1.51/system/df")
    assert status == 200
    [image] = usage["Images"]
    assert usage["LayersSize"] == image["Size"] > 0
    assert image["Containers"] == 1
    [container] = usage["Containers"]
    assert container["SizeRw"] == 3000000
    assert container["SizeRootFs"] == 3000000 + image["Size"]
    sizes = {volume["Name"]: volume["UsageData"] for volume in usage["Volumes"]}
    assert sizes.pop("data") == {"RefCount": 1, "Size": 2000000}
    assert list(sizes.values()) == [{"RefCount": 1, "Size": 0}]
    assert usage["BuildCache"] == []
    for client in (host.docker, host.wherry):
        lines = [re.split(r"  +", line.strip()) for line in client("system", "df").stdout.splitlines()]
        assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
        assert lines[2] == ["Containers", "1", "0", "3MB", "3MB (100%)"]
        assert lines[3] == ["Local Volumes", "2", "1", "2MB", "0B (0%)"] or lines[3][4] == "0B (0%)"


def test_df_of_some_kinds_only(host):
    status, usage = host.api("GET", "/v1.51/system/df?type=volume&type=container")
    assert status == 200
    assert usage["Images"] is None
    assert usage["BuildCache"] is None
    assert isinstance(usage["Volumes"], list)
    assert isinstance(usage["Containers"], list)
    assert host.api("GET", "/system/df?type=foo") == (400, {"message": "unknown object type: foo"})


@pytest.mark.parametrize("form", [(), ("-v",), ("-v", "--format", "json"), ("--format", "json")])
def test_our_df_prints_what_docker_s_does(own_host, form):
    own_host.docker("run", "--name", "writer", "-v", "data:/data", "busybox", "sh", "-c", "echo hello > /own")
    theirs, ours = (client("system", "df", *form).stdout for client in (own_host.docker, own_host.wherry))
    # Clients run one after another: the age differs, and with it a column's width.
    ours, theirs = (
        re.sub(r"  +", "  ", re.sub(r"(Less than a|[0-9]+) seconds? ago", "just now", text)) for text in (ours, theirs)
    )
    assert ours == theirs


# -- prune


@pytest.fixture
def littered(own_host):
    """Containers, images and volumes, some of them in use, labelled or to be kept."""
    host = own_host
    host.docker("run", "-d", "--name", "runs", "-v", "used:/v", "busybox", "sleep", "1000")
    for name, flags in (("plain", ()), ("red", ("--label", "colour=red")), ("kept", ("--label", "wherry.keep"))):
        host.docker("create", "--name", name, *flags, "busybox", "true")
    host.docker("volume", "create", "named")
    host.docker("create", "--name", "short", "-v", "/anonymous", "busybox", "true")
    host.docker("rm", "short")
    return host


def names(host):
    return set(host.out("ps", "-a", "--format", "{{.Names}}").split())


def test_container_prune_honours_filters_and_the_keep_label(littered):
    host = littered
    said = host.out("container", "prune", "-f", "--filter", "label!=colour=red")
    assert said.startswith("Deleted Containers:")
    assert "Total reclaimed space: 0B" in said
    assert names(host) == {"runs", "red", "kept"}
    host.docker("container", "prune", "-f", "--filter", "until=1h")
    assert names(host) == {"runs", "red", "kept"}
    host.docker("container", "prune", "-f", "--filter", "label=colour")
    assert names(host) == {"runs", "kept"}


def test_volume_prune_spares_named_volumes_unless_told(littered):
    host = littered
    assert len(host.out("volume", "prune", "-f").splitlines()[1]) == 64
    assert set(host.out("volume", "ls", "-q").split()) == {"used", "named"}
    assert "named" in host.out("volume", "prune", "-f", "-a")
    assert host.out("volume", "ls", "-q").split() == ["used"]


def test_old_clients_prune_named_volumes_too(littered):
    status, reply = littered.api("POST", "/v1.41/volumes/prune")
    assert status == 200
    assert "named" in reply["VolumesDeleted"]
    assert len(reply["VolumesDeleted"]) == 2


def test_image_prune_takes_the_dangling_or_the_unused(littered):
    host = littered
    host.import_busybox("busybox")  # the first one, which containers use, has no name now
    host.docker("rm", "-f", "plain", "red", "kept")
    host.docker("import", "-c", "LABEL a=1", "-", "other", input=host_tar(), text=False)
    host.docker("import", "-c", "LABEL a=2", "-", input=host_tar(), text=False)
    assert "deleted: sha256:" in host.out("image", "prune", "-f")
    assert "other" in host.out("images")
    said = host.out("image", "prune", "-f", "-a", "--filter", "label=a=1")
    assert "untagged: other:latest" in said
    assert len(host.out("images", "-aq").split()) == 2


def host_tar():
    import io
    import tarfile

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return data.getvalue()


def test_system_prune_leaves_what_is_used(littered):
    host = littered
    said = host.out("system", "prune", "-f", "-a", "--volumes")
    assert "Deleted Containers:" in said
    assert "Deleted Volumes:" in said
    assert names(host) == {"runs", "kept"}
    assert set(host.out("volume", "ls", "-q").split()) == {"used", "named"}
    assert host.out("images", "--format", "{{.Repository}}") == "busybox"


def test_bad_filters_are_refused_in_docker_s_words(host):
    def refused(kind, filters):
        from urllib.parse import quote

        status, reply = host.api("POST", f"/v1.51/{kind}/prune?filters={quote(json.dumps(filters))}")
        return status, reply["message"]

    assert refused("containers", {"foo": ["x"]}) == (400, "invalid filter 'foo'")
    assert refused("containers", {"until": ["zz"]}) == (400, 'failed to parse value as time or duration: "zz"')
    assert refused("containers", {"until": ["1h", "2h"]}) == (400, "more than one until filter specified")
    assert refused("images", {"dangling": ["zz"]}) == (400, "invalid filter 'dangling=[zz]'")
    assert refused("volumes", {"all": ["zz"]})[1].endswith('strconv.ParseBool: parsing "zz": invalid syntax')
    assert refused("networks", {"zz": ["zz"]}) == (400, "invalid filter 'zz'")


def test_each_prune_is_an_event(littered):
    host = littered
    before = host.out("info", "--format", "{{.SystemTime}}")
    host.docker("container", "prune", "-f")
    host.docker("image", "prune", "-f")
    host.docker("volume", "prune", "-f")
    host.docker("network", "prune", "-f")
    shown = host.out("events", "--since", before, "--until", str(int(time.time()) + 1), "--filter", "event=prune",
                     "--format", "{{.Type}} {{.Actor.Attributes.reclaimed}}")  # fmt: skip
    assert shown.splitlines() == ["container 0", "image 0", "volume 0", "network 0"]


# -- what Docker's prunes cannot


def test_a_dry_run_removes_nothing_and_tells_what_would_go(littered):
    host = littered
    before = names(host), host.out("volume", "ls", "-q")
    said = host.wherry("system", "prune", "--dry-run", "--volumes").stdout
    gone = set(host.out("ps", "-aq", "--no-trunc", "-f", "name=plain", "-f", "name=red").split())
    assert said.startswith("Would delete Containers:")
    assert gone <= set(said.split())
    assert "Would delete Volumes:" in said
    assert "Total reclaimable space: 0B" in said
    assert (names(host), host.out("volume", "ls", "-q")) == before


@pytest.mark.parametrize("flags", [["-a", "--volumes"], ["--volumes"], ["-a", "--filter", "label=colour=red"]])
def test_a_dry_run_tells_what_a_prune_then_does(littered, flags):
    """What only the containers use that would go first would go, too."""
    host = littered
    host.docker(
        "import", "-c", "LABEL colour=red", "-c", "VOLUME /v", "-", "stopped/image", input=host_tar(), text=False
    )
    host.docker("create", "--label", "colour=red", "stopped/image", "true")
    would = host.wherry("system", "prune", "--dry-run", *flags).stdout.replace("Would delete", "Deleted")
    assert ("untagged: stopped/image" in would) is ("-a" in flags)
    assert ("Deleted Volumes:" in would) is ("--volumes" in flags)
    done = host.wherry("system", "prune", "-f", *flags).stdout.replace("reclaimed", "reclaimable")
    layers = set(done.splitlines()) - set(would.splitlines())
    assert set(would.splitlines()) <= set(done.splitlines())
    assert all(line.startswith("deleted: sha256:") for line in layers)


def test_asked_on_a_terminal_only_what_was_shown_goes(littered):
    host = littered
    ours, theirs = pty.openpty()
    process = host.popen(*our_command(), "container", "prune", stdin=theirs)
    try:
        shown = b""
        while b"[y/N]" not in shown:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, process.stderr.read()
            shown += piece
        host.docker("create", "--name", "newcomer", "busybox", "true")
        os.write(ours, b"y\n")
        process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert names(host) == {"runs", "kept", "newcomer"}


@pytest.mark.parametrize("answer", ["n", "", "y"])
def test_the_question_is_docker_s(littered, answer):
    host = littered
    text = host.wherry("container", "prune", input=answer + "\n").stdout
    warning = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    assert text.startswith(warning)
    assert ("plain" in names(host)) == (answer != "y")
