"""Every planted wrong rule is caught, by the law it breaks, with its name where it has one; right ones pass.

Each is certified in one of its dtypes and with one key, chosen by its name: half of them in float64, which compiles
least; the other dtypes share the rest. One right rule in four goes through all contexts. `python -m benchmarks.proof`
runs every dtype, every context and many keys. The two Pythons that CI runs share the rules between them.
"""

import zlib

import jax
import pytest

from adjax import certify
from tests.certify.mutants import MUTANTS
from tests.certify.right import RIGHT
from tests.sharing import shared


def chosen(rule):
    """A dtype and a key, by name."""
    number = zlib.crc32(rule.name.encode())
    if number % 2 and "float64" in rule.dtypes:
        return "float64", number % 1000
    return rule.dtypes[number // 2 % len(rule.dtypes)], number % 1000


@pytest.fixture(autouse=True, scope="module")
def small_memory():
    """Compiled programs are of no use to the next module."""
    yield
    jax.clear_caches()


@pytest.mark.parametrize("mutant", shared(MUTANTS), ids=lambda m: m.name)
def test_mutant_is_killed(mutant):
    dtype, key = chosen(mutant)
    contexts = [mutant.context] if mutant.context else []
    certificate = certify(mutant.function(), *mutant.at(dtype), key=key, contexts=contexts, **mutant.options)
    assert not certificate.ok, f"{dtype}, key {key}: not caught\n{certificate}"
    seen = {(f.law, f.context) for f in certificate.failures}
    assert (mutant.law, mutant.context) in seen, f"{dtype}, key {key}: caught by {seen}\n{certificate}"
    if mutant.diagnosis is not None:
        said = " | ".join(f.diagnosis for f in certificate.failures)
        assert mutant.diagnosis.lower() in said.lower(), f"{dtype}, key {key}: {said}"


def test_there_are_mutants_enough():
    assert len(MUTANTS) >= 80 and len(RIGHT) >= 40
    for rules in (MUTANTS, RIGHT):
        assert len({rule.name for rule in rules}) == len(rules), "two rules share a name"


@pytest.mark.parametrize("rule", shared(RIGHT), ids=lambda r: r.name)
def test_right_rule_passes(rule):
    dtype, key = chosen(rule)
    options = dict(rule.options) if key % 4 == 0 else {"contexts": [], **rule.options}
    certificate = certify(rule.function(), *rule.at(dtype), key=key, **options)
    assert certificate.ok, f"{dtype}, key {key}:\n{certificate}"


@pytest.mark.parametrize("rule", [r for r in shared(RIGHT) if r.options.get("waive")], ids=lambda r: r.name)
def test_a_departure_is_refuted_without_its_waiver(rule):
    dtype, key = chosen(rule)
    options = {name: value for name, value in rule.options.items() if name != "waive"}
    certificate = certify(rule.function(), *rule.at(dtype), key=key, contexts=[], **options)
    assert not certificate.ok
    assert {f.law for f in certificate.failures} & set(rule.options["waive"])
