"""What can be said without a registry: challenges, proxies, names of servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.registry import challenges, proxies
from wherry.registry.auth import retry_after
from wherry.registry.config import ProxyConfig
from wherry.registry.credentials import Credentials
from wherry.registry.login import domain_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('bearer Realm = "x" , error="invalid_token"', [("bearer", {"realm": "x", "error": "invalid_token"})]),
        (r'Basic realm="a \"b\" \\ c"', [("basic", {"realm": r'a "b" \ c'})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Bearer realm=https://a/token,service=s", [("bearer", {"realm": "https://a/token", "service": "s"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('"', []),
        ("", []),
        ('Bearer realm="never closed', [("bearer", {})]),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list) -> None:
    assert [tuple(challenge) for challenge in challenges.parse([header])] == expected


@given(st.text(max_size=200))
def test_any_challenge_is_survived(header: str) -> None:
    challenges.parse([header, "Basic " + header])


def test_challenges_take_no_time() -> None:
    for evil in ("a=" * 4000, "," * 8000, 'a="' + "\\" * 8000, " " * 8000, "a " * 4000, "Basic " + "a=b," * 2000):
        challenges.parse([evil])
    challenges.parse(["Basic a=" + "b" * 8000 + " x"] * 1000)
    assert len(challenges.parse(["Basic"] * 1000)) == 16


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "proxied"),
    [
        ("", "registry.example", 443, True),
        ("", "localhost", 443, False),
        ("", "127.8.8.8", 443, False),
        ("", "::1", 443, False),
        ("*", "registry.example", 443, False),
        ("example", "registry.example", 443, False),
        ("registry.example", "registry.example", 443, False),
        ("registry.example", "REGISTRY.example", 443, False),
        ("registry.example", "a.registry.example", 443, False),
        ("registry.example", "myregistry.example", 443, True),
        (".example", "registry.example", 443, False),
        (".registry.example", "registry.example", 443, True),
        ("*.example", "registry.example", 443, False),
        ("registry.example:5000", "registry.example", 443, True),
        ("registry.example:443", "registry.example", 443, False),
        ("a, b ,registry.example", "registry.example", 443, False),
        ("10.0.0.0/8", "10.2.3.4", 443, False),
        ("10.0.0.0/8", "11.2.3.4", 443, True),
        ("10.0.0.0/8", "ten.example", 443, True),
        ("10.2.3.4", "10.2.3.4", 443, False),
        ("10.2.3.4:80", "10.2.3.4", 443, True),
        ("fd00::/8", "fd00::1", 443, False),
        ("[fd00::1]:443", "fd00::1", 443, False),
        ("fd00::1", "fd00::1", 443, False),
        ("nonsense/8", "registry.example", 443, True),
        ("registry.example:²,[fd00::1]:²", "registry.example", 443, True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, proxied: bool) -> None:
    config = ProxyConfig("", "http://proxy.example:3128", no_proxy)
    assert (proxies.proxy_for(config, "https", host, port) is not None) == proxied


def test_proxies_by_scheme() -> None:
    config = ProxyConfig("plain.example", "http://me:p%40ss@secure.example:8080/")
    assert proxies.proxy_for(config, "http", "a.example", 80) == proxies.Proxy("plain.example", 80)
    assert proxies.proxy_for(config, "https", "a.example", 443) == proxies.Proxy("secure.example", 8080, "me", "p@ss")


@pytest.mark.parametrize(
    "url", ["ftp://secret:word@a", "http://", "http://secret:word@a:99999", "socks5://a", "http://[x"]
)
def test_bad_proxies(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        proxies.parse(url)
    assert "word" not in str(caught.value)


def test_proxies_of_the_environment() -> None:
    both = {"http_proxy": "a", "HTTPS_PROXY": "b", "https_proxy": "c", "NO_PROXY": "d"}
    assert proxies.from_environment(both) == ProxyConfig("a", "b", "d")


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry.example", "registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("http://registry.example:5000/v2/", "registry.example:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_servers_to_log_in_to(server: str, domain: str) -> None:
    assert domain_of(server) == domain


@pytest.mark.parametrize("server", ["a:b", "http://[x", "a:99999", "https:///a", "/a", "?a", "me@"])
def test_servers_that_are_none(server: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse server address"):
        domain_of(server)


def test_retry_after() -> None:
    assert retry_after("7") == 7
    assert retry_after("Thu, 01 Jan 2015 00:00:00 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after("") is None
    assert retry_after("²") is None
    assert retry_after("9" * 5000) is not None


def test_credentials_stay_out_of_texts() -> None:
    assert "secret" not in repr(Credentials("me", "secret", "secret", "secret"))
