"""How many replicas there are, as the command line has it; and what is said without Ray."""

from __future__ import annotations

import importlib.util

import pytest

from engine.cli.main import app
from engine.cli.runner import run
from engine.errors import InputError
from engine.scale.options import Replicas


def test_numbers_and_ranges() -> None:
    assert Replicas.read("2") == Replicas(2, 2) and str(Replicas.read("1")) == "1 replica"
    scaled = Replicas.read("1-4", cpus=2, gpus=0.5)
    assert str(scaled) == "1 to 4 replicas" and "num_replicas" not in scaled.settings()
    assert scaled.settings()["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}
    for text in ("", "0", "two", "3-2", "-1", "1-", "99999"):
        with pytest.raises(InputError, match="--replicas: found"):
            Replicas.read(text)
    with pytest.raises(InputError, match="--cpus and --gpus"):
        Replicas.read("1", cpus=0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "python -m engine", ["serve", "--port", "0", "--replicas", "2"]) == 2
    assert capsys.readouterr().err == (
        "error: --replicas: it needs Ray, which is not installed; pip install 'mixdesk[scale]'\n"
    )
