"""The endpoints for programs, called with gradio_client and by plain HTTP, as a server behind its checks has them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app.schemas.desk_state import MixtureState
from app.services import app_state, bank_service, endpoint_runs
from app.services.app_state import Desk
from app.services.endpoint_runs import EndpointRuns
from app.services.rate_limit import RateLimit
from app.storage.database import Store
from app.storage.saved_mixtures import SavedMixtures
from engine import Engine, Sampling
from engine.bank import collection
from tests.app.server.guarding import LOCAL, OWNED, app_of
from tests.browser.serving import running
from tests.conftest import Tiny

NAMES = ["/generate", "/stream", "/score", "/expected_rewards", "/solve", "/rate", "/mixtures"]
TALK = [{"role": "user", "content": "mix"}, {"role": "assistant", "content": "the faders"}]


def connect(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False, download_files=False)


@pytest.fixture(scope="module")
def desk(tiny_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = Store(tmp_path_factory.mktemp("endpoints") / "mixdesk.db")
    yield Desk(tiny_engine, store)
    store.close()


@pytest.fixture(scope="module")
def url(desk: Desk) -> Iterator[str]:
    with running(app_of(desk, OWNED)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return connect(url)


def refused(client: Client, name: str, /, **arguments: Any) -> str:
    with pytest.raises(AppError) as error:
        client.predict(**arguments, api_name=name)
    said = str(error.value)
    assert len(said.splitlines()) == 1, said
    return said


def until(true: Any, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(true())


def test_there_are_seven_endpoints_and_no_other_handler_is_shown(client: Client, url: str) -> None:
    listed = client.view_api(return_format="dict", print_info=False)
    assert list(listed["named_endpoints"]) == NAMES and not listed["unnamed_endpoints"]
    everything = httpx.get(f"{url}/gradio_api/info?all_endpoints=True").json()
    assert list(everything["named_endpoints"]) == NAMES and not everything["unnamed_endpoints"]
    for endpoint in listed["named_endpoints"].values():
        assert endpoint["description"].endswith(".")
        for parameter in endpoint["parameters"]:
            assert parameter["python_type"]["description"], parameter
            assert parameter["python_type"]["type"] != "Any"


def test_a_response_is_the_engines(client: Client, desk: Desk) -> None:
    engine = desk.engine
    given = {"max_new_tokens": 9, "temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "seed": 7}
    made = client.predict(
        "mix", weights={"plain": 3, "narrow": 1}, rule="power", exponent=0.5, gain=1.5, **given, api_name="/generate"
    )
    seed = given.pop("seed")
    own = engine.submit(
        "mix", engine.mixture({"plain": 3, "narrow": 1}, "power", 1.5, 0.5), Sampling(**given), seed
    ).completion()
    assert (made["text"], made["tokens"], made["seed"]) == (own.text, own.tokens, 7)
    assert made["mixture"] == own.mixture.as_dict() and made["finish_reason"] == own.finish_reason
    assert made["rewards"] == pytest.approx(own.rewards)
    assert made["standard_rewards"] == pytest.approx(engine.reward_set.standard(own.rewards))


def test_a_conversation_is_answered_at_its_end(client: Client, desk: Desk) -> None:
    made = client.predict("mix", history=TALK, max_new_tokens=8, seed=3, api_name="/generate")
    whole = [*TALK, {"role": "user", "content": "mix"}]
    own = desk.engine.submit(whole, desk.engine.mixture(), Sampling(max_new_tokens=8), 3).completion()
    assert made["tokens"] == own.tokens and made["prompt"] == own.prompt
    assert made["tokens"] != client.predict("mix", max_new_tokens=8, seed=3, api_name="/generate")["tokens"]


def test_without_a_seed_each_response_is_another(client: Client) -> None:
    seeds = {client.predict("mix", max_new_tokens=1, api_name="/generate")["seed"] for _ in range(3)}
    assert len(seeds) > 1


def test_a_stream_grows_to_what_generate_returns(client: Client) -> None:
    settings = {"prompt": "mix", "max_new_tokens": 120, "seed": 5, "temperature": 1.5}
    *parts, last = list(client.submit(**settings, api_name="/stream"))
    whole = client.predict(**settings, api_name="/generate")
    assert {**last, "id": ""} == {**whole, "id": ""}
    texts = [part["text"] for part in parts]
    assert parts and all(set(part) == {"text", "ahead"} for part in parts)
    assert all(later.startswith(earlier) for earlier, later in zip(texts, [*texts[1:], last["text"]], strict=True))


def test_a_response_ends_at_a_stop_string(client: Client) -> None:
    settings = {"prompt": "mix", "max_new_tokens": 40, "seed": 5, "temperature": 1.5}
    whole = client.predict(**settings, api_name="/generate")["text"]
    stop = whole[len(whole) // 2 :][:3]
    made = client.predict(**settings, stop=["never there", stop], api_name="/generate")
    assert made["text"] == whole[: whole.index(stop)] and made["finish_reason"] == "stop_string"


def test_particles_are_sampled(client: Client, desk: Desk) -> None:
    made = client.predict("mix", max_new_tokens=4, particles=4, seed=2, api_name="/generate")
    sampling = Sampling(max_new_tokens=4, particles=4)
    own = desk.engine.submit("mix", desk.engine.mixture(), sampling, 2).completion()
    assert made["tokens"] == own.tokens and made["log_normaliser"] == pytest.approx(own.log_normaliser)


@pytest.mark.parametrize("history", [None, TALK])
def test_a_given_response_is_scored(client: Client, desk: Desk, history: list[dict[str, str]] | None) -> None:
    scored = client.predict("mix", "the quick fox", history, api_name="/score")
    prompt = [*history, {"role": "user", "content": "mix"}] if history else "mix"
    own = desk.engine.token_log_probs(prompt, "the quick fox")
    assert scored["log_probs"] == pytest.approx({name: sum(values) for name, values in own.items()})
    rewards = desk.engine.rewards([(prompt, "the quick fox", None)])[0]
    assert scored["rewards"] == pytest.approx(dict(rewards)) and scored["missing_rewards"] == rewards.missing


def test_saved_mixtures_are_listed_and_named(client: Client, desk: Desk) -> None:
    saved = SavedMixtures(desk.store)
    faders = {"plain": 1.0, "stabilized": 0.5, "narrow": 0.0}
    saved.save("two of them", MixtureState(faders=faders, rule="power", gain=2.0, exponent=0.5))
    saved.save("elsewhere", MixtureState(faders={"other": 1.0}, rule="geometric", gain=1.0, exponent=1.0))
    listed = client.predict(api_name="/mixtures")
    own = desk.engine.mixture({"plain": 2, "stabilized": 1}, "power", 2.0, 0.5)
    assert listed["saved"]["two of them"] == own.as_dict()
    assert "other" in listed["saved"]["elsewhere"]["error"]
    assert listed["policies"] == ["plain", "stabilized", "narrow"] and listed["configuration"] == "tiny"
    made = client.predict("mix", mixture="two of them", max_new_tokens=6, seed=1, api_name="/generate")
    assert made["mixture"] == own.as_dict()
    # What is given beside its name wins.
    less = client.predict("mix", mixture="two of them", gain=0.5, max_new_tokens=1, api_name="/generate")
    assert less["mixture"] == {
        **own.as_dict(), "gain": 0.5
    }  # fmt: skip
    for name in ("narrow", "reference"):
        mixture = client.predict("mix", mixture=name, max_new_tokens=1, api_name="/generate")["mixture"]
        assert mixture == desk.engine.mixture({name: 1.0}).as_dict()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weights": {"nobody": 1.0}}, "weights: no policy is called 'nobody'"),
        ({"weights": {"plain": "much"}}, "weights, plain: input should be a valid number; found 'much'"),
        ({"weights": {"plain": -1}}, "weights, plain: input should be greater than or equal to 0; found -1"),
        ({"weights": {"plain": 0}}, "weights: "),
        ({"weights": {"plain": 1}, "mixture": "narrow"}, "weights: a mixture is named too; give one of the two"),
        ({"mixture": "none"}, "mixture: there is no 'none'; there are plain, stabilized, narrow, reference"),
        ({"rule": "sum"}, "rule: no rule is called 'sum'"),
        ({"gain": 99}, "gain: found 99"),
        ({"gain": "1"}, "gain: input should be a valid number"),
        ({"exponent": 1000, "rule": "power"}, "exponent: "),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
        ({"max_new_tokens": 129}, "max_new_tokens: found 129; give at most 128 on this desk"),
        ({"max_new_tokens": 2.5}, "max_new_tokens: input should be a valid integer"),
        ({"temperature": -1}, "temperature: found -1"),
        ({"top_p": 2}, "top_p: found 2"),
        ({"particles": 17}, "particles: input should be less than or equal to 16"),
        ({"particles": True}, "particles: input should be a valid integer"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0"),
        ({"stop": ["a"] * 17}, "stop: "),
        ({"stop": "a"}, "stop: input should be a valid list"),
        ({"seed": 2**63}, "seed: input should be less than"),
        ({"prompt": 3}, "prompt: input should be a valid string"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "mix " * 9000}, "prompt: it is"),
        ({"history": "hello"}, "history: input should be a valid list"),
        ({"history": [{"role": "user"}]}, "prompt, message 1: "),
        ({"history": [{"role": "user", "content": "mix"}]}, "prompt, message 2: "),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(client: Client, arguments: dict[str, Any], said: str) -> None:
    assert refused(client, "/generate", **{"prompt": "mix", "max_new_tokens": 3, **arguments}).startswith(said)


def test_a_stream_that_is_refused_says_why(client: Client) -> None:
    assert refused(client, "/stream", prompt="mix", gain=99).startswith("gain: found 99")


def test_a_failure_tells_no_more_than_that(client: Client, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret path /root")

    monkeypatch.setattr(desk.engine.policy_set, "mixture", fail)
    assert refused(client, "/generate", prompt="mix") == "The engine failed at this; its log says why. Try again."


# ------------------------------------------------------------------------------------------------------------ ratings


def test_a_pair_is_rated_once(client: Client, desk: Desk) -> None:
    left, right = (client.predict("mix", seed=seed, max_new_tokens=5, api_name="/generate") for seed in (1, 2))
    rating = {"left": left["id"], "right": right["id"], "choice": "right", "annotator": "ann"}
    first = client.predict(**rating, api_name="/rate")
    assert first["new"] and client.predict(**rating, api_name="/rate") == {**first, "new": False}
    pair = desk.store.pair(first["rating_id"])
    assert (pair["choice"], pair["annotator"]) == ("right", "ann")
    assert [pair[side]["text"] for side in ("left", "right")] == [left["text"], right["text"]]
    assert client.predict(**{**rating, "annotator": "bob", "rating_id": "mine"}, api_name="/rate") == {
        "rating_id": "mine", "new": True
    }  # fmt: skip
    other = client.predict("quick", max_new_tokens=2, api_name="/generate")
    assert "different prompts" in refused(client, "/rate", **{**rating, "left": other["id"], "annotator": "c"})
    for change, said in (
        ({"choice": "both"}, "choice: found 'both'; give one of "),
        ({"annotator": "a b"}, "annotator: found 'a b'"),
        ({"left": "x"}, "left: there is no such response of yours"),
        ({"right": left["id"]}, "right: it is the left response too"),
        ({"rating_id": "a/b"}, "rating id: found 'a/b'"),
    ):
        assert refused(client, "/rate", **{**rating, **change}).startswith(said)


def test_a_response_is_its_clients_own(client: Client, url: str) -> None:
    ids = [client.predict("mix", seed=seed, max_new_tokens=2, api_name="/generate")["id"] for seed in (1, 2)]
    said = refused(connect(url), "/rate", left=ids[0], right=ids[1], choice="left", annotator="ann")
    assert said.startswith("left: there is no such response of yours")


def test_ratings_have_the_pages_limit(client: Client, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [client.predict("mix", seed=seed, max_new_tokens=2, api_name="/generate")["id"] for seed in (1, 2)]
    monkeypatch.setattr(desk, "ratings", RateLimit(2))
    rating = {"left": ids[0], "right": ids[1], "choice": "tie"}
    for annotator in ("d", "e"):
        assert client.predict(**rating, annotator=annotator, api_name="/rate")["new"]
    assert f"more than {app_state.RATINGS}" in refused(client, "/rate", **rating, annotator="f")


# ------------------------------------------------------------------------------------------- limits, and going away


def test_a_client_has_a_limit_and_is_told_so(client: Client, monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    monkeypatch.setattr(endpoint_runs, "OF_CLIENT", 2)
    jobs = [client.submit("mix", max_new_tokens=128, temperature=3.0, api_name="/generate") for _ in range(4)]
    said = [str(error) for job in jobs if (error := job.exception(timeout=60))]
    assert 1 <= len(said) <= 2
    assert all(line.startswith("2 responses of yours are under way, which is the most for one client") for line in said)
    assert client.predict("mix", max_new_tokens=2, api_name="/generate")["tokens"]


def test_pages_and_programs_of_an_address_count_together(tiny_engine: Engine, store: Store) -> None:
    desk = Desk(tiny_engine, store)
    runs, mixture = EndpointRuns(tiny_engine, desk.runs), tiny_engine.mixture()
    panels = dict.fromkeys(("left", "right", "third"), mixture)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint_runs, "OF_ADDRESS", 4)
        page = desk.start("page", "mix", panels, Sampling(max_new_tokens=200), 1, address="10.0.0.1")
        run = runs.begin("one", "10.0.0.1", "mix", mixture, Sampling(max_new_tokens=200), 1)
        with pytest.raises(Exception, match="4 responses of yours are under way, which is the most for one network"):
            runs.make_room("two", "10.0.0.1")
        runs.make_room("two", "10.0.0.2")
        runs.end(run)
        page.cancel()
    assert until(lambda: page.done and run.done)
    runs.make_room("two", "10.0.0.1")


@pytest.mark.parametrize("name", ["/generate", "/stream"])
def test_a_cancelled_job_frees_its_rows(client: Client, desk: Desk, name: str) -> None:
    job = client.submit("mix", max_new_tokens=128, temperature=3.0, api_name=name)
    assert until(lambda: desk.engine.rows > 0)
    job.cancel()
    assert until(lambda: desk.engine.rows == 0, 2)
    assert client.predict("mix", max_new_tokens=2, api_name="/generate")["tokens"]


def test_a_client_that_goes_away_frees_its_rows(url: str, desk: Desk) -> None:
    """Its heartbeat's end says so."""
    before = desk.engine.telemetry.responses["stopped"]
    with httpx.Client(base_url=f"{url}/gradio_api") as http:
        number = next(
            each["id"] for each in http.get(f"{url}/config").json()["dependencies"] if each["api_name"] == "generate"
        )
        with http.stream("GET", "/heartbeat/abc"):
            data = ["mix", None, None, "", None, None, None, 128, 3.0, 0, 1.0, 0.0, 1.0, 1, 5, None]
            joined = http.post("/queue/join", json={"data": data, "fn_index": number, "session_hash": "abc"})
            assert joined.status_code == 200
            assert until(lambda: desk.engine.rows > 0)
    assert until(lambda: desk.engine.rows == 0, 2)
    assert until(lambda: desk.engine.telemetry.responses["stopped"] == before + 1)


# ---------------------------------------------------------------------------------------------------------- plain HTTP


def call(url: str, name: str, body: dict[str, Any], version: str = "v2/") -> Any:
    made = httpx.post(f"{url}/gradio_api/call/{version}{name}", json=body)
    assert made.status_code == 200, made.text
    text = httpx.get(f"{url}/gradio_api/call/{name}/{made.json()['event_id']}", timeout=60).text
    event, data = text.strip().split("\n\n")[-1].split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_endpoints_can_be_called_without_a_client_library(url: str, client: Client) -> None:
    event, (made,) = call(url, "generate", {"prompt": "mix", "max_new_tokens": 5, "seed": 1})
    own = client.predict("mix", max_new_tokens=5, seed=1, api_name="/generate")
    assert event == "complete" and {**made, "id": ""} == {**own, "id": ""}
    event, (listed,) = call(url, "mixtures", {"data": []}, version="")
    assert event == "complete" and listed["configuration"] == "tiny"
    event, said = call(url, "generate", {"prompt": "mix", "gain": 99})
    assert event == "error" and said["error"].startswith("gain: found 99")


@pytest.mark.parametrize("name", ["stop", "leave", "generate_1", "rate_1", "branch", "", "v2", "v2/stop", "v2/x/y/z"])
def test_no_handler_of_the_page_is_called_by_its_name(url: str, name: str) -> None:
    answer = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": []})
    assert answer.status_code == 404 and "no such endpoint" in answer.text


def test_a_page_of_another_site_cannot_call(url: str) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    for path in ("call/generate", "call/v2/generate", "queue/join"):
        assert httpx.post(f"{url}/gradio_api/{path}", json={"prompt": "mix"}, headers=headers).status_code == 403


# ------------------------------------------------------------------------------------------------------------ the bank


@pytest.fixture
def with_bank(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Desk]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module in (bank_service, collection):
        monkeypatch.setattr(module, "SAMPLING", Sampling(max_new_tokens=6, temperature=1.0))
    (tiny.folder / "few.txt").write_text("mix\nmove the faders\nthe quick brown fox")
    with Engine.from_config(tiny.write("few.yaml", prompts="few.txt")) as engine:
        desk = Desk(engine, Store(tmp_path / "mixdesk.db"))
        with running(app_of(desk, LOCAL)) as (url, _):
            yield connect(url), desk
        desk.store.close()


def test_what_the_bank_says_is_what_the_page_says(with_bank: tuple[Client, Desk]) -> None:
    client, desk = with_bank
    expected = desk.expected
    assert refused(client, "/solve") == "There is no bank yet: press Balance on the page, which samples one."
    assert refused(client, "/expected_rewards").startswith("No expected rewards yet: press Balance")

    async def sample() -> None:
        async for _ in expected.sample("me"):
            pass

    asyncio.run(sample())
    bank = expected.bank
    assert bank is not None
    weights = {"plain": 0.5, "stabilized": 0.25, "narrow": 0.25}
    said = client.predict(weights=weights, gain=1.5, api_name="/expected_rewards")
    estimate = bank.estimate(1.5 * np.array([weights[name] for name in bank.policies]))
    assert said["rewards"] == pytest.approx(dict(zip(bank.objectives, estimate.rewards.tolist(), strict=True)))
    assert said["reliable"] == bool(estimate.reliable) and said["weights"] == weights
    # The reference has its share: π_ref to the rest.
    half = client.predict(weights={"plain": 1, "reference": 1}, api_name="/expected_rewards")
    estimate = bank.estimate(np.array([0.5, 0.0, 0.0]))
    assert half["rewards"] == pytest.approx(dict(zip(bank.objectives, estimate.rewards.tolist(), strict=True)))
    assert "geometric rule alone" in refused(client, "/expected_rewards", rule="power")

    methods = client.predict(api_name="/mixtures")["methods"]
    for method in ["", *methods]:
        found = client.predict(method=method, api_name="/solve")
        own = expected.balanced(method=method or methods[0])
        assert found["method"] == own.method == (method or methods[0])
        assert found["weights"] == pytest.approx(own.weights) and sum(found["weights"].values()) == pytest.approx(1)
    kept = client.predict(fixed={"narrow": 0.25}, api_name="/solve")
    assert kept["weights"]["narrow"] == 0.25 and sum(kept["weights"].values()) == pytest.approx(1)
    above = client.predict(worth={"narrow": 3}, api_name="/solve")
    assert above["weights"] == pytest.approx(expected.reaching({}, worth={"narrow": 3.0}, repeats=30).weights, abs=1e-6)
    for arguments, line in (
        ({"method": "best"}, f"method: there is no 'best'; there are {', '.join(methods)}"),
        ({"method": methods[0], "worth": {"narrow": 2}}, "method: floors and worth have a method of their own"),
        ({"fixed": {"nobody": 0.1}}, "fixed: there is no policy 'nobody'; there are plain, stabilized, narrow"),
        ({"fixed": {"plain": 0.5, "narrow": 0.5}}, "fixed: these weights leave nothing to find"),
        ({"floors": {"nobody": 0.1}}, "floor: no reward is for 'nobody'"),
        ({"floors": {"plain": "x"}}, "floors, plain: input should be a valid number"),
        ({"gain": 11}, "gain: input should be less than or equal to 10"),
    ):
        assert refused(client, "/solve", **arguments).startswith(line)
