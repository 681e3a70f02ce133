"""Shows why a gradient has its shape, what a backward pass keeps and costs, and where gradients die.

    derive_adjoint      the cotangent of each operand of an einsum: its spec, its matrix form, and why no other fits
    explain             arguments, residuals, FLOPs and memory of any function, beside plain autodiff
    saved_residuals     what the forward pass keeps for the backward pass
    probe               the identity, which reports what passes it forward and back to record_probes
    predict             time and memory of a training step of a large decoder on many chips
    plot                all of it as pictures
    gradient_flow       norms, singular values and cotangents of every layer, and what is wrong with them
"""

from . import plot as plot
from .cost_layers import Decoder as Decoder
from .cost_model import DECODERS as DECODERS
from .cost_model import Prediction as Prediction
from .cost_model import predict as predict
from .derive import Derivation as Derivation
from .derive import derive_adjoint as derive_adjoint
from .explain import Explanation as Explanation
from .explain import explain as explain
from .flow import Flow as Flow
from .flow import LayerFlow as LayerFlow
from .flow import gradient_flow as gradient_flow
from .hardware import HARDWARE as HARDWARE
from .hardware import Degrees as Degrees
from .hardware import Hardware as Hardware
from .probe import probe as probe
from .probe import record_probes as record_probes
from .saved import saved_residuals as saved_residuals
