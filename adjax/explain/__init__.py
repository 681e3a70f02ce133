"""Shows why a gradient has its shape.

    derive_adjoint      the cotangent of each operand of an einsum: its spec, its matrix form, and why no other fits
"""

from .derive import Derivation as Derivation
from .derive import derive_adjoint as derive_adjoint
