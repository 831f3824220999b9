from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine import Engine, Mixture
from engine.api.api_error import ApiError
from engine.api.fields import MixdeskFields
from engine.api.model_names import find_model, list_models
from tests.conftest import Tiny

SAVED = {
    "warm": Mixture({"plain": 3.0, "narrow": 1.0, "gone": 0.0}, gain=1.5),
    "of another desk": Mixture({"gone": 1.0}),
    "a/b": Mixture({"narrow": 1.0}),
}


class Source:
    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.found = engines

    def engines(self) -> Mapping[str, Engine]:
        return self.found

    def saved_mixture(self, name: str) -> Mixture | None:
        return SAVED.get(name)

    def saved_names(self) -> list[str]:
        return list(SAVED)


@pytest.fixture
def source(tiny_engine: Engine) -> Source:
    return Source({"tiny": tiny_engine})


def test_names(source: Source) -> None:
    weights = {
        "reference": {"reference": 1.0},
        "narrow": {"narrow": 1.0},
        "plain=0.6,narrow=0.4": {"plain": 0.6, "narrow": 0.4},
        " plain = 3 ; reference = 1": {"plain": 0.75, "reference": 0.25},
        "warm": {"plain": 0.75, "narrow": 0.25},
        "tiny/narrow": {"narrow": 1.0},
        "tiny/plain=1": {"plain": 1.0},
        "a/b": {"narrow": 1.0},
    }
    for name, expected in weights.items():
        model = find_model(source, name)
        found = {policy: weight for policy, weight in model.mixture.weights.items() if weight}
        assert found == pytest.approx(expected), name
        assert model.id == name and model.configuration == "tiny"
    assert find_model(source, "warm").mixture.gain == 1.5
    mixture = find_model(source, "plain=1,narrow=1,rule=soup,gain=2").mixture
    assert (mixture.rule, mixture.gain) == ("soup", 2.0)


def test_models_of_other_configurations_have_its_name(source: Source, tiny: Tiny) -> None:
    names = [model.id for model in list_models(source)]
    assert names == ["reference", "plain", "stabilized", "narrow", "warm", "a/b"]
    with Engine.from_config(tiny.write("second.yaml", name="second")) as second:
        source.found = {**source.found, "second": second}
        names = [model.id for model in list_models(source)]
        assert names[:6] == ["reference", "plain", "stabilized", "narrow", "warm", "a/b"]
        assert names[6:] == [f"second/{name}" for name in names[:6]]
        assert find_model(source, "second/warm").engine is second
        assert find_model(source, "warm").engine is not second


@pytest.mark.parametrize(
    "name",
    ["", "gone", "PLAIN", "gone=1", "plain=1,gone=1", "of another desk", "tiny/", "other/plain", "=", "x" * 10**5],
)
def test_unknown_names_say_what_there_is(source: Source, name: str) -> None:
    with pytest.raises(ApiError) as error:
        find_model(source, name)
    envelope = error.value.envelope()["error"]
    assert error.value.status == 404 and envelope["code"] == "model_not_found" and envelope["param"] == "model"
    assert "reference, plain, stabilized, narrow, warm" in envelope["message"] and len(envelope["message"]) < 300


@pytest.mark.parametrize(
    "name", ["plain=x", "plain=-1", "plain=0", "plain=1,plain=1", "plain=1,gain=99", "plain=nan", "plain=1,rule=no"]
)
def test_mixtures_with_a_mistake_are_bad_requests(source: Source, name: str) -> None:
    with pytest.raises(ApiError) as error:
        find_model(source, name)
    assert error.value.status == 400 and error.value.message.startswith("model: ")


def test_without_a_configuration_it_is_unavailable() -> None:
    with pytest.raises(ApiError) as error:
        find_model(Source({}), "reference")
    assert error.value.status == 503 and "Retry-After" in error.value.headers


def test_what_a_request_gives_of_the_mixture_wins(source: Source) -> None:
    model = find_model(source, "warm")
    assert model.mixed(MixdeskFields()) == model.mixture
    assert model.mixed(MixdeskFields(gain=0.5)).weights == model.mixture.weights
    mixed = model.mixed(MixdeskFields(weights={"stabilized": 2}, rule="power", exponent=-1))
    assert mixed == model.engine.mixture({"stabilized": 1.0}, "power", 1.5, -1)
    with pytest.raises(ApiError, match=r"mixdesk.weights: no policy is called 'gone'"):
        model.mixed(MixdeskFields(weights={"gone": 1}))
