"""Fixtures for the tests of the command line."""

import sys

import pytest

from adjax.certify import program
from tests.certify.commands import RULES, StandIn


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a stand-in in the place of `certify`."""

    def put(**settings):
        prover = StandIn(**settings)
        monkeypatch.setattr(program, "certify", prover)
        return prover

    return put


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A current folder with `rules.py` in it, forgotten afterwards."""
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", None))]:
        del sys.modules[name]
