"""What a certificate says: verdicts law by law, findings, detection power, residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What was found out about a law in a context."""

    PROVEN = "proven"               # checked, and it holds
    REFUTED = "refuted"             # checked, and it does not
    WAIVED = "waived"               # it does not hold, and the caller said so beforehand
    UNSUPPORTED = "unsupported"     # the function does not work there, with JAX's own reason
    SKIPPED = "skipped"             # not judged, with the reason
    VACUOUS = "vacuous"             # it holds, and could not have failed


@dataclass(frozen=True)
class Finding:
    """A law that does not hold.

    Attributes:
        law: its name, one of `LAWS`.
        argument: the leaf whose cotangent is wrong (`params.W`), or "" where it is the function.
        context: the transformation under which it was seen; "" for none.
        message: what was expected and what was found.
        diagnosis: the mistake in one sentence, or "" where nothing fits.
        measured, tolerance: the largest error, and what rounding explains, as shares of the largest entry expected.
    """

    law: str
    argument: str
    context: str
    message: str
    diagnosis: str = ""
    measured: float = float("nan")
    tolerance: float = float("nan")


@dataclass(frozen=True)
class Row:
    """One line of the table: a law, or the core of the laws in one context."""

    law: str
    context: str
    verdict: Verdict
    checks: int = 0                     # comparisons made
    measured: float = float("nan")      # the largest error, relative to its tolerance: at most 1 where it holds
    note: str = ""


@dataclass(frozen=True)
class Power:
    """How small a mistake in one argument's cotangent this run would have caught.

    Attributes:
        argument: the leaf.
        element: the smallest relative error of a single element, for the element least well seen.
        scale: the smallest relative error of the cotangent as a whole.
        blind: how many elements had a zero derivative in every probe: nothing relative can be said of them.
        size: how many elements there are.
        oracles: the oracles that judged it, each with True where it agrees with the rule.
    """

    argument: str
    element: float
    scale: float
    blind: int
    size: int
    oracles: Mapping[str, bool]


@dataclass(frozen=True)
class Residual:
    """An array that the forward pass keeps for the backward pass."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Certificate:
    """The result of `certify`; prints as a table, shows as HTML in a notebook.

    Attributes:
        name: of the function.
        signature: types of arguments and results, `X f32[8,16], … -> f32[8,4]`.
        rows: one per law, then one per context.
        findings: what does not hold, waived or not.
        powers: the detection power, one per differentiated leaf.
        residuals: what the forward pass keeps.
        warnings: remarks that refute nothing.
        waived: the laws and contexts waived by the caller.
        seed: the key's seed, to run the same probes again.
        environment: versions and devices.
        seconds: how long it took.

    >>> import jax, adjax
    >>> certificate = adjax.certify(jax.numpy.sin, jax.numpy.ones(3), laws=["adjoint"], contexts=[])
    >>> certificate.ok, str(certificate.verdict), certificate.failures
    (True, 'proven', ())
    """

    name: str
    signature: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    powers: tuple[Power, ...]
    residuals: tuple[Residual, ...]
    warnings: tuple[str, ...]
    waived: tuple[str, ...]
    seed: int
    environment: str
    seconds: float

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that were not waived."""
        return tuple(f for f in self.findings if not is_waived(f.law, f.context, self.waived))

    @property
    def verdict(self) -> Verdict:
        """Refuted if anything failed that is not waived; vacuous if nothing could have failed; proven otherwise."""
        if self.failures:
            return Verdict.REFUTED
        blind = not self.findings and all(p.blind == p.size for p in self.powers)
        return Verdict.VACUOUS if blind else Verdict.PROVEN

    @property
    def ok(self) -> bool:
        """Whether the rule is proven."""
        return self.verdict is Verdict.PROVEN

    def __str__(self) -> str:
        from .report import text

        return text(self)

    def _repr_html_(self) -> str:
        from .report import html

        return html(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has; floats that JSON lacks become None.

        >>> import jax, adjax
        >>> certificate = adjax.certify(jax.numpy.sin, jax.numpy.ones(3), laws=["adjoint"], contexts=[])
        >>> [row["law"] for row in certificate.to_dict()["rows"]]
        ['adjoint']
        """
        from .report import to_dict

        return to_dict(self)


def is_waived(law: str, context: str, waived: Sequence[str]) -> bool:
    """Whether a law, a context, or the kind of context it is ("vmap" of "vmap X") is among those waived."""
    kind = "vmap" if context.startswith("vmap ") and context not in ("vmap cotangents", "vmap of grad") else context
    return law in waived or (bool(context) and (context in waived or kind in waived))


class AdjointError(AssertionError):
    """A rule is not proven; the message is the certificate's text.

    Attributes:
        certificate: the whole of it.

    >>> import jax, adjax
    >>> wrong = jax.custom_vjp(lambda x: 2 * x)
    >>> wrong.defvjp(lambda x: (2 * x, None), lambda _, dy: (5 * dy,))
    >>> try:
    ...     adjax.assert_adjoint(wrong, jax.numpy.ones(3), laws=["adjoint"], contexts=[])
    ... except AdjointError as error:
    ...     print(error.certificate.failures[0].diagnosis)
    dx is 2.5 times the adjoint...
    """

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(certificate)
        self.certificate = certificate

    def __str__(self) -> str:
        return str(self.certificate)
