"""By which names a desk may be reached, and when everybody is its owner."""

from __future__ import annotations

import socket

import pytest

from app.server.access import describe_access, find_access, is_loopback, split_host
from engine import InputError

SPACE = {"SPACE_ID": "me/desk", "SPACE_HOST": "me-desk.hf.space"}


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("localhost", ("localhost", "")),
        ("LocalHost.:7860", ("localhost", "7860")),
        ("[::1]:7860", ("::1", "7860")),
        ("127.0.0.1:80", ("127.0.0.1", "80")),
        ("", ("", "")),
        ("a@b", ("", "")),
        ("a/b", ("", "")),
        ("a:b", ("", "")),
        ("[::1", ("", "")),
    ],
)
def test_a_host_header_is_divided(header: str, parts: tuple[str, str]) -> None:
    assert split_host(header) == parts


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.8.7", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "localhost.example.org", "")))


@pytest.mark.parametrize(
    ("host", "root", "allowed", "env", "yes", "no"),
    [
        ("127.0.0.1", "", [], {}, ["localhost", "127.1.2.3", "::1"], ["evil.example", "10.0.0.1", "", "0.0.0.0"]),
        ("192.168.1.5", "", [], {}, ["localhost", "192.168.1.5"], ["192.168.1.6", "evil.example"]),
        ("127.0.0.1", "https://mix.org/desk", [], {}, ["mix.org", "localhost"], ["desk", "evil.example"]),
        ("127.0.0.1", "/desk", ["a.org", "B.org,c.org"], {}, ["a.org", "b.org", "c.org"], ["d.org"]),
        ("0.0.0.0", "", [], {}, ["10.0.0.1", "fd00::1", socket.gethostname().lower()], ["evil.example"]),
        ("0.0.0.0", "", ["a.org"], {}, ["a.org", "10.0.0.1"], ["evil.example", socket.gethostname().lower()]),
        ("0.0.0.0", "", [], SPACE, ["me-desk.hf.space"], ["other.hf.space"]),
        ("127.0.0.1", "", [], {"SPACE_HOST": "me-desk.hf.space"}, ["localhost"], ["me-desk.hf.space"]),
    ],
)
def test_names(host: str, root: str, allowed: list, env: dict, yes: list[str], no: list[str]) -> None:
    access = find_access(host, root, allowed, env=env)
    assert all(access.allows_host(name, "7860") for name in yes), yes
    assert not any(access.allows_host(name, "7860") for name in no), no


def test_a_name_with_a_port_is_that_port_only() -> None:
    access = find_access("127.0.0.1", allowed=["a.org:8443"], env={})
    assert access.allows_host("a.org", "8443") and not access.allows_host("a.org", "80")


@pytest.mark.parametrize("name", ["https://a.org", "*", "*.a.org", "a.org/desk", "a:b"])
def test_a_mistaken_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--allowed-host"):
        find_access("127.0.0.1", allowed=[name], env={})


def test_who_owns_a_desk() -> None:
    assert not find_access("127.0.0.1", env={}).hosted
    assert not find_access("localhost", env={}).hosted
    for host, token, env in (("127.0.0.1", "t" * 16, {}), ("0.0.0.0", "", {}), ("127.0.0.1", "", SPACE)):
        assert find_access(host, owner_token=token, env=env).hosted
    # Behind a proxy on this machine, too.
    for settings in ({"allowed": ["mix.org"]}, {"root": "https://mix.org/desk"}, {"trust_proxy": True}):
        assert find_access("127.0.0.1", env={}, **settings).hosted
    assert not find_access("127.0.0.1", root="/desk", allowed=["localhost:9000"], env={}).hosted
    with pytest.raises(InputError, match="--owner-token: it has 5 characters; give 16 or more"):
        find_access("127.0.0.1", owner_token="short", env={})


def test_a_space_is_behind_a_proxy_and_in_a_frame() -> None:
    access = find_access("0.0.0.0", env=SPACE)
    assert access.trust_proxy and access.framed_by == ("https://huggingface.co",)
    other = find_access("0.0.0.0", env={})
    assert not other.trust_proxy and other.framed_by == ()


def test_the_start_says_how_to_allow_a_name_and_to_have_an_owner() -> None:
    assert describe_access(find_access("127.0.0.1", env={}), "127.0.0.1") == []
    names, owner = describe_access(find_access("0.0.0.0", env={}), "0.0.0.0")
    assert "--allowed-host NAME" in names and "MIXDESK_OWNER_TOKEN" in owner
    assert describe_access(find_access("127.0.0.1", owner_token="t" * 16, env={}), "127.0.0.1") == []
