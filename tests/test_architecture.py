from __future__ import annotations

import ast

import pytest

from tests import architecture


@pytest.mark.parametrize("check", architecture.CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check) -> None:
    assert list(check(architecture.parsed())) == []


def violations(check, **sources: str) -> list[str]:
    return list(check({name.replace("__", "."): ast.parse(source) for name, source in sources.items()}))


def test_each_check_finds_what_it_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    assert violations(architecture.upward, engine__rules__mixture="from engine.bank.estimate import Bank")
    assert violations(architecture.upward, engine__config="import app.palette")
    assert violations(architecture.upward, app__palette="from app.ui.page import build_page")
    assert not violations(architecture.upward, engine__bank__estimate="from engine.rules.mixture import Mixture")

    scheduler = "class A:\n    def __init__(self):\n        self._jobs = 1"
    assert violations(architecture.private, engine__a=scheduler, engine__b="def f(a):\n    return a._jobs")
    assert violations(architecture.private, engine__b="from engine.a import _jobs")
    assert not violations(architecture.private, engine__a=scheduler + "\n    def f(self):\n        return self._jobs")

    assert violations(architecture.duplicates, engine__a="def f(): ...", app__b="def f(): ...")

    rule = 'RULE = Rule(name="sum")'
    assert violations(architecture.spelled_names, engine__rules__sum=rule, app__ui__page='rule = "sum"')
    assert violations(architecture.spelled_names, engine__solvers__x='N = "x"\nSOLVER = S(name=N)', engine__a='m = "x"')
    assert not violations(architecture.spelled_names, engine__rules__sum=rule, app__ui__page='rule = "mean"')

    assert violations(architecture.undocumented, engine__a="def f(): ...")
    assert not violations(architecture.undocumented, engine__a="def _f(): ...")

    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "long.py").write_text("x = 1\n" * (architecture.LONGEST + 1))
    assert violations(architecture.too_long)
