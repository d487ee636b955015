"""Sequences of `context` commands on one configuration, and what is left of it: answers and files."""

import io
import os
import re
import shlex
import tarfile
from pathlib import Path

import trustme

HERE = Path(__file__).parent


def cases():
    """Each a list of commands: words behind `context`, variables before them perhaps, or "write FILE TEXT"."""
    lines = (HERE / "data" / "context_cases.txt").read_text().splitlines()
    return [[shlex.split(command) for command in line.split(" ;; ")] for line in lines]


def split(words):
    """(environment, words) of one command."""
    count = next(n for n, word in enumerate(words) if not re.match("[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def prepare(top):
    """The files that the commands name, in `top`; the configuration will be in top/config."""
    authority = trustme.CA()
    issued, other = authority.issue_cert("client.example"), authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(f"{top}/ca")
    issued.private_key_pem.write_to_path(f"{top}/key")
    issued.cert_chain_pems[0].write_to_path(f"{top}/cert")
    other.cert_chain_pems[0].write_to_path(f"{top}/other")
    (Path(top) / "config").mkdir()


def write(top, name, text):
    """A file of the configuration, written by hand."""
    path = Path(top, "config", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(top):
    """What the commands left behind: {path: mode and content}, archives unpacked."""
    found = {}
    for directory, subdirectories, files in os.walk(top):
        # Docker leaves the empty directories of certificates that are gone.
        filled = {name: any(files for _, _, files in os.walk(Path(directory, name))) for name in subdirectories}
        there = [name for name in subdirectories if filled[name] or name == "config"]
        paths = [(Path(directory, name), name in files) for name in (*there, *files)]
        for path, is_file in paths:
            mode = f"{path.stat().st_mode & 0o777:o}"
            found[str(path.relative_to(top))] = f"{mode} {_content(path)}" if is_file else mode
    return {path: text for path, text in sorted(found.items()) if path not in ("ca", "cert", "key", "other")}


def _content(path):
    data = path.read_bytes()
    if not data.startswith(b"meta.json\0"):
        return data.decode()
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1536))) as archive:  # Docker's lacks the padding at the end
        return "".join(
            f"{m.name} {m.mode:o} {archive.extractfile(m).read().decode() if m.isreg() else '/'}\n" for m in archive
        )


def masked(text, top):
    """Without what differs by run."""
    return re.sub(r"-----BEGIN .*?-----END [A-Z ]+-----", "@PEM@", text.replace(str(top), "@TOP@"), flags=re.S)
