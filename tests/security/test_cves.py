"""Every weakness of other engines that concerns what is built here, and the tests that would find it.

Grouped as they come up: how a container is born and joined; files that are copied, exported, committed, mounted;
archives of images. Each test fails when the defence is taken away; where two stand one behind the other (paths are
resolved in the root, and after the root was changed), both have to be.
"""

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from tests.e2e.host import busybox_tar

from .evil import TOKEN, link, make_canary, state

TESTS = Path(__file__).parents[1]

BIRTH_AND_JOIN = {
    "CVE-2019-5736": [
        "runtime/test_hostile.py::test_script_of_proc_self_exe_gets_nothing_to_write_to",
        "monitor/test_exec.py::test_no_process_of_the_engine_is_within_reach_of_the_container",
        "monitor/test_kernel.py::test_a_copy_of_the_interpreter_runs_and_cannot_be_overwritten",
    ],
    "CVE-2024-21626": [
        "runtime/test_hostile.py::test_a_working_directory_outside_the_root_is_noticed",
        "runtime/test_hostile.py::test_working_directory_cannot_be_a_leaked_descriptor",
        "runtime/test_hostile.py::test_working_directory_of_exec_cannot_be_one_either",
        "runtime/test_hostile.py::test_created_container_holds_nothing_of_the_host",
        "security/test_isolation.py::test_descriptors_are_the_streams_alone",
    ],
    "CVE-2016-9962": [
        "runtime/test_exec.py::test_joining_process_gives_nothing_to_the_container",
        "monitor/test_exec.py::test_whoever_traces_a_joining_process_gains_nothing",
    ],
    "CVE-2025-31133": ["runtime/test_hostile.py::test_masks_do_not_use_a_false_null_device"],
    "CVE-2025-52565": ["runtime/test_hostile.py::test_console_that_is_a_link"],
    "CVE-2025-52881": [
        "runtime/test_hostile.py::test_a_sysctl_that_leads_elsewhere_is_not_written",
        "runtime/test_hostile.py::test_proc_and_sys_must_be_directories",
    ],
    "CVE-2026-41579": [
        "runtime/test_hostile.py::test_dev_that_is_a_link",
        "runtime/test_hostile.py::test_dev_whose_entries_are_links",
    ],
    "CVE-2021-30465": [
        "runtime/test_hostile.py::test_mount_target_behind_a_link_stays_inside",
        "runtime/test_hostile.py::test_mount_target_swapped_at_the_worst_moment",
    ],
    "CVE-2024-45310": ["runtime/test_hostile.py::test_mount_target_behind_a_link_stays_inside"],
    "CVE-2019-19921": ["runtime/test_hostile.py::test_proc_and_sys_must_be_directories"],
    "CVE-2023-27561": ["runtime/test_hostile.py::test_proc_and_sys_must_be_directories"],
    "CVE-2023-28642": ["runtime/test_hostile.py::test_proc_and_sys_must_be_directories"],
    "CVE-2019-16884": [
        "runtime/test_hostile.py::test_mounts_over_proc_are_refused",
        "security/test_images.py::test_volumes_over_proc_are_refused",
    ],
    "CVE-2015-3631": ["security/test_images.py::test_volumes_over_proc_are_refused"],
    "CVE-2022-29162": ["security/test_isolation.py::test_capabilities_of_run_and_exec"],
    "CVE-2022-24769": [
        "security/test_isolation.py::test_capabilities_of_run_and_exec",
        "engine_oci/test_options.py::test_inheritable_and_ambient_stay_empty",
    ],
    "CVE-2022-27649": ["security/test_isolation.py::test_capabilities_of_run_and_exec"],
    "GHSA-c9cp": ["security/test_isolation.py::test_capabilities_of_run_and_exec"],
    "CVE-2016-8867": ["security/test_isolation.py::test_capabilities_of_run_and_exec"],
    "CVE-2018-10856": [
        "security/test_isolation.py::test_capabilities_of_run_and_exec",
        "runtime/test_container.py::test_capabilities_of_a_user_are_none",
    ],
    "CVE-2022-36109": [
        "security/test_isolation.py::test_the_primary_group_is_among_the_supplementary_ones",
        "runtime/test_users.py::test_additional_groups",
    ],
    "CVE-2022-2990": ["security/test_isolation.py::test_the_primary_group_is_among_the_supplementary_ones"],
    "CVE-2022-2995": ["security/test_isolation.py::test_the_primary_group_is_among_the_supplementary_ones"],
    "CVE-2023-25173": ["security/test_isolation.py::test_the_primary_group_is_among_the_supplementary_ones"],
    "CVE-2016-3697": ["security/test_images.py::test_a_user_that_is_a_number_is_no_name"],
    "CVE-2026-46680": ["security/test_images.py::test_a_user_that_is_a_number_is_no_name"],
    "CVE-2024-40635": [
        "security/test_images.py::test_odd_values_of_an_image_do_no_harm",
        "runtime/test_users.py::test_no_content_gives_ids_out_of_range",
    ],
    "CVE-2026-47262": [
        "runtime/test_hostile.py::test_user_files_that_are_traps",
        "security/test_images.py::test_user_files_cost_little_whatever_they_are",
    ],
    "GHSA-mjcv-p78q-w5fw": ["security/test_images.py::test_user_files_cost_little_whatever_they_are"],
    "GHSA-72x6": ["security/test_images.py::test_user_files_cost_little_whatever_they_are"],
    "CVE-2024-9676": [
        "runtime/test_hostile.py::test_user_files_that_are_links_out",
        "security/test_images.py::test_user_files_cost_little_whatever_they_are",
    ],
    "CVE-2022-4318": ["security/test_requests.py::test_no_value_starts_a_line_of_its_own"],
    "CVE-2026-23953": ["security/test_requests.py::test_no_value_starts_a_line_of_its_own"],
    "CVE-2024-5154": ["security/test_images.py::test_links_where_the_engine_writes"],
    "CVE-2024-9341": ["security/test_images.py::test_links_where_the_engine_writes"],
    "CVE-2026-55686": ["security/test_images.py::test_a_working_directory_behind_a_link"],
    "CVE-2021-43784": ["runtime/test_hostile.py::test_long_texts_are_refused_or_taken_whole"],
    "CVE-2022-0811": [
        "runtime/test_hostile.py::test_sysctls_that_are_not_the_containers",
        "runtime/test_hostile.py::test_sysctls_of_the_hosts_namespaces",
        "security/test_isolation.py::test_sysctls_of_the_host_cannot_be_named",
    ],
    "GHSA-w2j5-3rcx-vx7x": [
        "runtime/test_hostile.py::test_sysctls_of_the_hosts_namespaces",
        "security/test_isolation.py::test_sysctls_of_the_host_cannot_be_named",
    ],
    "CVE-2018-10892": ["security/test_isolation.py::test_masks_hold_for_those_who_join"],
    "CVE-2017-16539": ["security/test_isolation.py::test_masks_hold_for_those_who_join"],
    "GHSA-6fw5": ["security/test_isolation.py::test_masks_hold_for_those_who_join"],
    "GHSA-jq35": ["security/test_isolation.py::test_masks_hold_for_those_who_join"],
    "CVE-2015-3630": ["runtime/test_container.py::test_masked_and_read_only_paths"],
    "GHSA-g54h-m393-cpwq": ["cgroups/test_devices.py::test_a_list_is_an_allow_list_without_saying_so"],
    "CVE-2015-3627": ["security/test_images.py::test_links_where_the_engine_writes"],
    "CVE-2015-3629": ["security/test_images.py::test_links_where_the_engine_writes"],
    "CVE-2014-6408": ["security/test_images.py::test_what_an_image_says_beside_its_configuration_is_not_heard"],
    "CVE-2024-3154": ["security/test_images.py::test_what_an_image_says_beside_its_configuration_is_not_heard"],
    "CVE-2025-65105": ["security/test_requests.py::test_confinement_that_cannot_be_had_is_an_error"],
    "CVE-2025-64750": ["security/test_requests.py::test_confinement_that_cannot_be_had_is_an_error"],
    "CVE-2023-6476": ["security/test_isolation.py::test_every_process_is_in_the_containers_cgroup"],
    "CVE-2025-47291": ["security/test_isolation.py::test_every_process_is_in_the_containers_cgroup"],
    "CVE-2022-1227": ["security/test_images.py::test_top_executes_nothing_of_the_container"],
    "CVE-2020-15257": ["security/test_isolation.py::test_no_socket_of_the_engine_has_an_abstract_name"],
    "CVE-2022-0492": ["seccomp/test_kernel.py::test_default_profile_is_enforced"],
    "CVE-2022-0185": ["seccomp/test_kernel.py::test_default_profile_is_enforced"],
    "CVE-2026-31431": [
        "e2e/test_defaults.py::test_the_world_inside_is_docker_s",
        "seccomp/test_kernel.py::test_families",
    ],
    "CVE-2021-3602": ["security/test_isolation.py::test_environment_of_the_engine_stays_there"],
    "CVE-2020-14370": ["security/test_isolation.py::test_environment_of_the_engine_stays_there"],
    "CVE-2024-3056": ["security/test_isolation.py::test_shared_memory_of_a_pair_is_given_back"],
}

FILES = {
    "CVE-2018-15664": [
        "files/test_hostile.py::test_reading_stays_inside",
        "files/test_hostile.py::test_writing_stays_inside",
    ],
    "CVE-2019-14271": [
        "files/test_hostile.py::test_nothing_of_the_container_is_run",
        "security/test_exec.py::test_traps_under_the_names_of_modules_are_never_imported",
    ],
    "CVE-2021-41089": ["files/test_hostile.py::test_writing_stays_inside"],
    "CVE-2026-41567": ["files/test_hostile.py::test_nothing_of_the_container_is_run"],
    "CVE-2026-41568": ["files/test_hostile.py::test_a_volume_below_a_swapped_directory"],
    "CVE-2026-42306": ["files/test_hostile.py::test_a_volume_below_a_swapped_directory"],
    "CVE-2019-10152": ["security/test_cves.py::test_names_with_patterns_are_names"],
    "CVE-2019-18466": ["security/test_cves.py::test_names_with_patterns_are_names"],
    "CVE-2020-1726": ["security/test_cves.py::test_a_volume_with_data_keeps_it"],
    "CVE-2022-23648": ["security/test_images.py::test_volumes_of_an_image_take_nothing_from_the_host"],
    "CVE-2020-10696": ["files/test_hostile.py::test_reading_stays_inside"],
    "CVE-2026-48749": [
        "images/test_load.py::test_links_between_members_are_names_not_paths",
        "security/test_cves.py::test_an_image_replaces_nothing_of_the_engines",
    ],
    "CVE-2026-48750": ["security/test_cves.py::test_an_image_replaces_nothing_of_the_engines"],
    "CVE-2026-48752": ["security/test_cves.py::test_an_image_replaces_nothing_of_the_engines"],
    "CVE-2026-53489": ["security/test_cves.py::test_a_log_that_became_a_link_is_not_followed"],
    "CVE-2025-54293": ["security/test_cves.py::test_a_log_that_became_a_link_is_not_followed"],
}

# Pull, load, import, extract, store: what archives of images do.
ARCHIVES = {
    "CVE-2014-9357": ["images/test_compression.py::test_truncation_and_garbage", "images/test_evil.py::test_loads"],
    "CVE-2014-6407": [
        "images/test_evil.py::test_trees",
        "images/test_extract.py::test_nothing_outside_is_touched_through_links",
    ],
    "CVE-2014-9356": ["images/test_evil.py::test_trees", "images/test_extract.py::test_chains_of_links_stay_inside"],
    "CVE-2026-17106": [
        "images/test_evil.py::test_trees",
        "images/test_extract.py::test_absolute_hard_link_targets_mean_the_root",
        "images/test_extract.py::test_links_of_the_archive_are_followed_inside_it",
    ],
    "CVE-2021-32760": ["images/test_extract.py::test_a_mode_on_a_link_changes_nothing_behind_it"],
    "CVE-2021-29136": ["images/test_extract.py::test_the_root_stays_a_directory"],
    "CVE-2007-4559": ["images/test_extract.py::test_names_outside_are_refused"],
    "CVE-2019-20907": [
        "images/test_evil.py::test_loads",
        "images/test_extract.py::test_damaged_archives_end_in_one_kind_of_error",
    ],
    "CVE-2024-6232": ["images/test_evil.py::test_loads"],
    "CVE-2025-8194": ["images/test_evil.py::test_loads"],
    "CVE-2017-14992": [
        "images/test_evil.py::test_bombs_cost_neither_memory_nor_disk",
        "images/test_load.py::test_a_bomb_is_stopped",
    ],
    "CVE-2023-25153": [
        "images/test_evil.py::test_loads",
        "images/test_evil.py::test_many_layers_and_images_need_few_open_files",
    ],
    "CVE-2021-21285": ["images/test_load.py::test_every_field_wrong_in_every_way"],
    "CVE-2024-36620": ["images/test_load.py::test_every_field_wrong_in_every_way"],
    "CVE-2021-41190": ["images/test_load.py::test_confused_and_unverifiable_documents_are_refused"],
    "CVE-2014-8179": [
        "images/test_load.py::test_a_wrong_diff_id_is_refused_with_dockers_words",
        "images/test_evil.py::test_loads",
    ],
    "CVE-2024-3727": ["images/test_evil.py::test_loads"],
    "CVE-2014-9358": [
        "images/test_load.py::test_paths_in_a_manifest_are_members_or_nothing",
        "images/test_evil.py::test_loads",
    ],
    "CVE-2014-5282": ["images/test_evil.py::test_loads"],
    "CVE-2024-36621": ["images/test_crash.py::test_many_loads_at_once_store_one_copy"],
    "CVE-2026-41685": ["images/test_crash.py::test_the_reserve_is_kept"],
    "CVE-2021-20291": [
        "images/test_load.py::test_a_stream_that_breaks_leaves_nothing",
        "images/test_evil.py::test_loads",
    ],
}

# They concern what is not built here.
NOT_HERE = {
    "CVE-2023-25809": "no engine without privileges",
    "CVE-2023-0778": "no export of volumes",
    "CVE-2022-4122": "no builder",
    "CVE-2022-4123": "no builder",
    "CVE-2025-9566": "no secrets",
    "CVE-2026-63125": "no backups",
    "CVE-2026-63343": "no backups",
}


@pytest.mark.parametrize("weakness", [*BIRTH_AND_JOIN, *FILES, *ARCHIVES])
def test_each_weakness_has_its_tests(weakness):
    assert weakness not in NOT_HERE
    for test in (BIRTH_AND_JOIN | FILES | ARCHIVES)[weakness]:
        file, _, name = test.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), f"{test} is gone"


def test_names_with_patterns_are_names(host, name, tmp_path):
    """What a container calls its files selects and names nothing on the host."""
    names = ("*", "[a]", "?", "-rf", "a\\b")
    script = "mkdir /d; " + "; ".join(f"echo inside >'/d/{each}'" for each in names) + "; ln -s / /d/root"
    host.docker("run", "--name", name, "busybox", "sh", "-c", script)
    (tmp_path / "a").write_text("of the host")
    for number, client in enumerate((host.docker, host.wherry)):
        target = tmp_path / str(number)
        client("cp", f"{name}:/d", str(target))
        assert {path.name for path in target.iterdir()} == {*names, "root"}
        assert all((target / each).read_text() == "inside\n" for each in names)
        assert (target / "root").is_symlink()
        client("cp", f"{name}:/d/*", str(tmp_path / f"star{number}"))
        assert (tmp_path / f"star{number}").read_text() == "inside\n"
        assert client("cp", f"{name}:/d/[b]", str(tmp_path / "none"), check=False).returncode == 1
    assert (tmp_path / "a").read_text() == "of the host"


def test_a_volume_with_data_keeps_it(host, name):
    """What the image has in the same place does not replace it."""
    host.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", "echo mine >/v/index.html")
    shown = host.out("run", "--rm", "-v", f"{name}:/www", "busybox", "sh", "-c", "cat /www/index.html; ls /www")
    host.docker("volume", "rm", name)
    assert shown == "mine\nindex.html"


OWN_NAMES = (
    *("config.json", "rootfs", "hostname", "hosts", "resolv.conf", "exit.json", "log", "json.log", "monitor.sock"),
    *("upper", "work", "merged", "diff", "link", "lower", "checkpoints", "repositories", "manifest.json", "index.json"),
)


def test_an_image_replaces_nothing_of_the_engines(host, name, tmp_path):
    """What an archive has under the names of the engine's own files is content like any other."""
    canary = make_canary(tmp_path / "canary")
    before = state(canary)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for own in OWN_NAMES:
            tar.addfile(link(own, str(canary / "file"))[0])
    whole = busybox_tar()[:-1024].rstrip(b"\0")
    whole += bytes(-len(whole) % 512) + data.getvalue()
    image = name.lower()
    host.docker("import", "-", image, input=whole, text=False)
    try:
        host.docker("run", "-d", "--name", name, "-h", "inside", image, "sh", "-c", "ls -1 /; sleep 1000")
        host.wait_until(lambda: "json.log" in host.out("logs", name), "the log")
        assert set(OWN_NAMES) <= set(host.out("logs", name).split())
        assert TOKEN not in host.out("exec", name, "cat", "/etc/hostname", "/etc/hosts")
        host.docker("commit", name, f"{image}:committed")
        host.docker("cp", f"{name}:/config.json", str(tmp_path / "copied"))
        assert (tmp_path / "copied").is_symlink()
    finally:
        host.docker("rm", "-f", name)
        host.docker("rmi", image, f"{image}:committed", check=False)
    assert state(canary) == before


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_log_that_became_a_link_is_not_followed(host, name, tmp_path, kind):
    """Whoever could write there would have the engine read, or wait for, another file."""
    secret = tmp_path / "secret"
    secret.write_text('{"log":"of the host\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n')
    host.docker("run", "--name", name, "busybox", "echo", "hello")
    log = Path(host.inspect(name)["LogPath"])
    log.rename(log.with_name("kept"))
    if kind == "link":
        log.symlink_to(secret)
    else:
        os.mkfifo(log)
    said = host.docker("logs", name, check=False, timeout=60)
    assert "of the host" not in said.stdout + said.stderr
    log.unlink()
    log.with_name("kept").rename(log)
    assert host.out("logs", name) == "hello"
