from __future__ import annotations

import pytest

from engine.api.api_error import ApiError
from engine.api.keys import ApiKeys
from engine.errors import InputError
from tests.engine.api.conftest import KEY, Poster, make_app

OTHER = "another-key-of-tests"


def scope(peer: str | None = "127.0.0.1", **headers: str) -> dict:
    headers = {"host": "127.0.0.1:8000", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": raw, "client": peer and (peer, 5000)}


@pytest.mark.parametrize(
    "sender",
    [
        scope(),
        scope("::1", host="[::1]:8000"),
        scope("::ffff:127.0.0.1", host="localhost"),
        scope(sec_fetch_site="same-origin", origin="http://127.0.0.1:8000"),
        scope(authorization="Bearer whatever"),
    ],
)
def test_without_keys_programs_of_this_machine_are_served(sender: dict) -> None:
    assert ApiKeys().caller(sender) == sender["client"][0]


@pytest.mark.parametrize(
    "sender",
    [
        scope("192.168.1.7"),
        scope(None),
        scope("example"),
        scope(host="evil.example"),  # DNS rebinding: the browser takes the server for a part of that site
        scope(host=""),
        scope(host="[::1"),
        scope(origin="http://evil.example"),
        scope(origin="http://127.0.0.1:9000"),
        scope(origin="null"),
        scope(sec_fetch_site="cross-site"),
        scope(sec_fetch_site="same-site"),
    ],
)
def test_without_keys_nobody_else_is(sender: dict) -> None:
    with pytest.raises(ApiError) as error:
        ApiKeys().caller(sender)
    assert error.value.status == 401 and "MIXDESK_API_KEYS" in error.value.message


def test_behind_a_proxy_without_keys_nobody_is_served() -> None:
    with pytest.raises(ApiError):
        ApiKeys(local=False).caller(scope())


def test_with_keys_each_request_needs_one_from_wherever_it_comes() -> None:
    keys = ApiKeys.read(f" {KEY} ,, {OTHER},")
    assert keys.caller(scope("203.0.113.9", host="desk.example", authorization=f"Bearer {KEY}")) == "key 1"
    assert keys.caller(scope(authorization=f"bearer  {OTHER}")) == "key 2"
    for header in ("", "Bearer ", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \xff"):
        with pytest.raises(ApiError) as error:
            keys.caller(scope(authorization=header))
        assert error.value.status == 401 and error.value.envelope()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("text", ["short", f"{KEY},1", "a key with several spaces", "ключ-ключ-ключ-ключ"])
def test_keys_that_are_no_secrets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="MIXDESK_API_KEYS: a key has"):
        ApiKeys.read(text)


def test_the_environment_has_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXDESK_API_KEYS", f"{KEY},{OTHER}")
    assert len(ApiKeys.read().keys) == 2
    monkeypatch.delenv("MIXDESK_API_KEYS")
    assert not ApiKeys.read().keys


def test_every_address_is_guarded(tiny_engine) -> None:
    app = make_app(tiny_engine, ApiKeys([KEY]))
    addresses = ["/v1/models", "/v1/models/plain", "/tokenizer_info", "/v1", "/v1/other"]
    posts = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]
    for path in (*addresses, *posts):
        method = "POST" if path in posts else "GET"
        assert Poster(app).send(method, path).status_code == 401, path
        assert Poster(app, authorization=f"Bearer {KEY}").send(method, path).status_code in (200, 400, 404), path
