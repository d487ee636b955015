import pytest

from wherry.errors import InvalidArgument
from wherry.images.references import check_digest, parse, parse_tag_target

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("me/app", "docker.io/me/app", "me/app"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/library/ubuntu:1", "docker.io/library/ubuntu:1", "ubuntu:1"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("a.b/c", "a.b/c", "a.b/c"),
        ("UP/x", "UP/x", "UP/x"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}", f"x:t@sha256:{HEX}"),
        ("a__b/c--d_e", "docker.io/a__b/c--d_e", "a__b/c--d_e"),
    ],
)
def test_normalises_and_shortens(text, full, familiar):
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:-x", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("x@sha256:abc", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("é", "invalid reference format"),
        ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("a.b/C", "invalid reference format: repository name (C) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("x@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("x@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("a/" * 130 + "x", "repository name must not be more than 255 characters"),
        ("x" * 10**6, "invalid reference format"),
    ],
)
def test_refuses_with_dockers_words(text, message):
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../x",
        "sha256:",
        "sha512:" + "a" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "é" * 64,
        "md5:" + "a" * 32,
        "sha256:" + "a" * 10**6,
        "",
        ":",
        HEX,
        "sha256:" + "a" * 63 + "\n",
    ],
)
def test_digests_are_checked_before_they_become_paths(digest, store):
    for use in (check_digest, store._content.path, store._layers.path):
        with pytest.raises(InvalidArgument):
            use(digest)


def test_tag_targets():
    assert str(parse_tag_target("x")) == "docker.io/library/x:latest"
    with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
        parse_tag_target(f"x@sha256:{HEX}")
    with pytest.raises(InvalidArgument, match="refusing to create an ambiguous tag using digest algorithm as name"):
        parse_tag_target("sha256:abc")
