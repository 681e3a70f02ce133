"""adjax: layers for JAX whose backward pass is the adjoint of their derivative, written down and proven.

    affine, AffineParams                          Y = X W + b, with dW = Xᵀ dY, dX = dY Wᵀ, db = Σ dY
    einsum                                        any spec of jnp.einsum; the adjoint swaps two terms of the spec
    conv, conv_transpose, ConvParams              Y = Σ_k S_k X W_k + b over 1 to 3 spatial axes, and its adjoint
    batch_norm, group_norm, layer_norm, rms_norm  Y = scale (X − μ)/σ + bias; NormParams, BatchState
    max_pool, avg_pool, global_avg_pool           over windows of 1 to 3 spatial axes, and over all of them
    attention                                     O = softmax(Q Kᵀ) V in linear memory; masks, bias, windows, groups
    ring_attention                                the same over a sequence that lies on many devices
    softmax, log_softmax                          P = exp(X)/Σ exp(X), with dX = P (dP − Σ P dP); masks
    cross_entropy, linear_cross_entropy           −Σ q log P; the second never holds the logits
    embed, rotary, dropout                        Y = P E, Y = R(θ) X, Y = M X
    relu, gelu, silu, swiglu, geglu               activations that keep their inputs, relu a boolean
    any_mode, AnyMode                             lifts a jax.custom_vjp to every differentiation mode
    linear_call                                   a linear map with a spelled adjoint
    adjoint, transpose                            of a linear function
    cotangent_like, contract, sum_leading, like   type a cotangent like its primal
    certify, assert_adjoint, Certificate          prove a backward rule, or say what is wrong with it
    derive_adjoint, Derivation                    why the cotangents of an einsum have their shapes, and no other form
    explain, Explanation, saved_residuals         what a backward pass keeps and costs, beside plain autodiff
    predict, Prediction                           time and memory of a training step on many chips: Decoder, Degrees,
                                                  Hardware; DECODERS and HARDWARE have some
    probe, record_probes                          statistics of a value and of its cotangent inside jit, scan and vmap
    plot                                          pictures of these, with matplotlib
    gradient_flow, Flow, LayerFlow                where gradients vanish, explode, die or are no numbers, and why
    inner, norm, random_like, zeros_like          the vector space of a pytree
"""

from .adjoint import AnyMode as AnyMode
from .adjoint import Like as Like
from .adjoint import adjoint as adjoint
from .adjoint import any_mode as any_mode
from .adjoint import contract as contract
from .adjoint import cotangent_like as cotangent_like
from .adjoint import inner as inner
from .adjoint import like as like
from .adjoint import linear_call as linear_call
from .adjoint import norm as norm
from .adjoint import random_like as random_like
from .adjoint import sum_leading as sum_leading
from .adjoint import transpose as transpose
from .adjoint import zeros_like as zeros_like
from .certify import AdjointError as AdjointError
from .certify import Certificate as Certificate
from .certify import assert_adjoint as assert_adjoint
from .certify import certify as certify
from .explain import DECODERS as DECODERS
from .explain import HARDWARE as HARDWARE
from .explain import Decoder as Decoder
from .explain import Degrees as Degrees
from .explain import Derivation as Derivation
from .explain import Explanation as Explanation
from .explain import Flow as Flow
from .explain import Hardware as Hardware
from .explain import LayerFlow as LayerFlow
from .explain import Prediction as Prediction
from .explain import derive_adjoint as derive_adjoint
from .explain import explain as explain
from .explain import gradient_flow as gradient_flow
from .explain import plot as plot
from .explain import predict as predict
from .explain import probe as probe
from .explain import record_probes as record_probes
from .explain import saved_residuals as saved_residuals
from .layers import AffineParams as AffineParams
from .layers import BatchState as BatchState
from .layers import ConvParams as ConvParams
from .layers import NormParams as NormParams
from .layers import affine as affine
from .layers import attention as attention
from .layers import avg_pool as avg_pool
from .layers import batch_norm as batch_norm
from .layers import conv as conv
from .layers import conv_transpose as conv_transpose
from .layers import cross_entropy as cross_entropy
from .layers import dropout as dropout
from .layers import einsum as einsum
from .layers import embed as embed
from .layers import geglu as geglu
from .layers import gelu as gelu
from .layers import global_avg_pool as global_avg_pool
from .layers import group_norm as group_norm
from .layers import layer_norm as layer_norm
from .layers import linear_cross_entropy as linear_cross_entropy
from .layers import log_softmax as log_softmax
from .layers import max_pool as max_pool
from .layers import relu as relu
from .layers import ring_attention as ring_attention
from .layers import rms_norm as rms_norm
from .layers import rotary as rotary
from .layers import silu as silu
from .layers import softmax as softmax
from .layers import swiglu as swiglu
