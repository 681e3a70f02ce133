"""Shows why a gradient has its shape, and what a backward pass keeps and costs.

    derive_adjoint      the cotangent of each operand of an einsum: its spec, its matrix form, and why no other fits
    explain             arguments, residuals, FLOPs and memory of any function, beside plain autodiff
    saved_residuals     what the forward pass keeps for the backward pass
"""

from .derive import Derivation as Derivation
from .derive import derive_adjoint as derive_adjoint
from .explain import Explanation as Explanation
from .explain import explain as explain
from .saved import saved_residuals as saved_residuals
