"""Shows why a gradient has its shape, what a backward pass keeps and costs, and where gradients die.

    derive_adjoint      the cotangent of each operand of an einsum: its spec, its matrix form, and why no other fits
    explain             arguments, residuals, FLOPs and memory of any function, beside plain autodiff
    saved_residuals     what the forward pass keeps for the backward pass
    gradient_flow       norms, singular values and cotangents of every layer, and what is wrong with them
"""

from .derive import Derivation as Derivation
from .derive import derive_adjoint as derive_adjoint
from .explain import Explanation as Explanation
from .explain import explain as explain
from .flow import Flow as Flow
from .flow import LayerFlow as LayerFlow
from .flow import gradient_flow as gradient_flow
from .saved import saved_residuals as saved_residuals
