"""Every layer of the package at several shapes and options has a certificate; the table grows with the layers.

The two Pythons that CI runs share the table between them.
"""

import zlib

import jax
import pytest

from adjax import certify
from tests.layers.families import CERTIFIED, FAMILIES
from tests.sharing import shared


@pytest.fixture(autouse=True, scope="module")
def small_memory():
    """Compiled programs are of no use to the next module."""
    yield
    jax.clear_caches()


@pytest.mark.parametrize("case", shared(CERTIFIED), ids=repr)
def test_layer_is_proven(case):
    contexts = None if case.everywhere else ()
    key = jax.random.key(zlib.crc32(case.name.encode()))
    certificate = certify(case.function, *case.arguments, key=key, contexts=contexts, **case.options)
    assert certificate.ok, f"\n{certificate}"


def test_every_family_is_certified_in_all_contexts():
    for name, family in FAMILIES.items():
        assert any(case.everywhere for case in family.CERTIFIED), name
