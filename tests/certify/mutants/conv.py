"""Convolutions with wrong rules.

Axes: b examples, t positions, m positions out, k taps, c channels in, o channels out. With the patches
X[b, m, k, c] = x[b, m·stride + k·dilation − left, c], zero where that is outside,

    Y = Σ_kc X[b, m, k, c] W[k, c, o]    so  dW = Σ_bm X dY,  dX = Σ_o dY W,  and dx adds dX up where it came from
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant


def same(t, k, stride, dilation, step=None):
    """Padding "SAME": left, right, and the position of every tap in the padded input, (m, k)."""
    m = -(-t // stride)
    total = max((m - 1) * stride + (k - 1) * dilation + 1 - t, 0)
    positions = (step or stride) * np.arange(m)[:, None] + dilation * np.arange(k)
    return total // 2, total - total // 2, positions


def valid(t, k, stride, dilation):
    """Padding "VALID"."""
    m = max((t - (k - 1) * dilation - 1) // stride + 1, 0)
    return 0, 0, stride * np.arange(m)[:, None] + dilation * np.arange(k)


def patches(x, k, stride, dilation, geometry=same, mode="constant"):
    """X[b, m, k, c]."""
    left, right, positions = geometry(x.shape[1], k, stride, dilation)
    return jnp.pad(x, ((0, 0), (left, right), (0, 0)), mode=mode)[:, positions]


def conv(x, W, stride=1, dilation=1):
    """Y[b, m, o] with padding "SAME"."""
    return jnp.einsum("bmkc,kco->bmo", patches(x, W.shape[0], stride, dilation), W)


def conv_valid(x, W):
    """Y[b, m, o] without padding."""
    return jnp.einsum("bmkc,kco->bmo", patches(x, W.shape[0], 1, 1, valid), W)


def conv_wrap(x, W, mode="constant"):
    """Y[b, m, o] with what `jnp.pad` puts around x."""
    return jnp.einsum("bmkc,kco->bmo", patches(x, W.shape[0], 1, 1, mode=mode), W)


def conv_bias(x, W, b):
    """Y[b, m, o] + b[o]."""
    return conv(x, W) + b


def conv_groups(x, W, groups=2):
    """Y[b, m, o]; W[k, c/groups, o]: each group of channels out sees its own group of channels in."""
    X = patches(x, W.shape[0], 1, 1)
    k, c, o = W.shape
    Y = jnp.einsum("bmkgc,kcgo->bmgo", X.reshape(*X.shape[:3], groups, c), W.reshape(k, c, groups, o // groups))
    return Y.reshape(*x.shape[:2], o)


def conv_2d(x, W, dilation=1):
    """Y[b, h, w, o] of x[b, h, w, c] and W[i, j, c, o], with padding "SAME"."""
    return lax.conv_general_dilated(
        x, W, (1, 1), "SAME", rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def adjoint_x(x, W, dY, stride=1, dilation=1, geometry=same):
    """dx."""
    left, right, positions = geometry(x.shape[1], W.shape[0], stride, dilation)
    dX = jnp.einsum("bmo,kco->bmkc", dY, W)
    padded = jnp.zeros((x.shape[0], left + x.shape[1] + right, x.shape[2]), x.dtype).at[:, positions].add(dX)
    return padded[:, left:left + x.shape[1]]


def adjoint_W(x, W, dY, stride=1, dilation=1, geometry=same):
    """dW."""
    return jnp.einsum("bmkc,bmo->kco", patches(x, W.shape[0], stride, dilation, geometry), dY)


def seen_as(geometry, stride=None, dilation=None):
    """The rule that takes the taps from elsewhere."""
    def backward(stride_given, dilation_given, residuals, dY):
        taps = stride or stride_given, dilation or dilation_given, geometry
        return adjoint_x(*residuals, dY, *taps), adjoint_W(*residuals, dY, *taps)
    return backward


def unflipped(stride, dilation, residuals, dY):
    x, W = residuals
    return adjoint_x(x, W[::-1], dY, stride, dilation), adjoint_W(x, W, dY, stride, dilation)


def shifted(residuals, dY):
    def off_by_one(*sizes):
        left, right, positions = valid(*sizes)
        return left, right + 1, positions + 1
    return adjoint_x(*residuals, dY, geometry=off_by_one), adjoint_W(*residuals, dY, geometry=valid)


def even_kernels_shifted(t, k, stride, dilation):
    _, _, positions = same(t, k, stride, dilation)
    return k // 2, max(k - 1, 0) // 2, positions


def as_for_even_sizes(t, k, stride, dilation):
    left, right, positions = same(t + t % stride, k, stride, dilation)
    return left, right + t % stride, positions


def stride_ignored(t, k, stride, dilation):
    return same(t, k, stride, dilation, step=1)


def changed_W(change):
    """The rule right but for a change of dW."""
    return lambda stride, dilation, res, dY: (adjoint_x(*res, dY, stride, dilation),
                                              change(adjoint_W(*res, dY, stride, dilation)))


def changed_b(sum_rows):
    """The rule that sums dY as told to find db."""
    return lambda res, dY: (adjoint_x(*res[:2], dY), adjoint_W(*res[:2], dY), sum_rows(dY))


def mode_ignored(mode, residuals, dY):
    return adjoint_x(*residuals, dY), adjoint_W(*residuals, dY)


def groups_mixed(groups, residuals, dY):
    _, pullback = jax.vjp(conv_groups, *residuals)
    dx, dW = pullback(dY)
    k, c, o = dW.shape
    return dx, dW.reshape(k, c, groups, o // groups).swapaxes(2, 3).reshape(k, c, o)


def dilation_ignored_2d(dilation, residuals, dY):
    return jax.vjp(conv_2d, *residuals)[1](dY)


def kernel_transposed_2d(dilation, residuals, dY):
    dx, dW = jax.vjp(conv_2d, *residuals)[1](dY)
    return dx, dW.swapaxes(0, 1)


SIGNALS = normal((2, 7, 4), (3, 4, 5))
EVEN = normal((2, 8, 4), (3, 4, 5))
SQUARE = normal((2, 7, 4), (3, 4, 4))
BIASED = normal((2, 5, 4), (3, 4, 5), (5,))
GROUPED = normal((3, 7, 4), (5, 2, 6))
IMAGES = normal((2, 5, 7, 4), (3, 3, 4, 6))


def images_dilated(rng):
    return *IMAGES(rng), 2


MUTANTS = [
    Mutant("conv: kernel not flipped in dx", planted(conv, unflipped), SIGNALS, law="adjoint"),
    Mutant("conv: dx off by one", planted(conv_valid, shifted), SIGNALS, law="adjoint", diagnosis="shifted by"),
    Mutant("conv: dilation ignored", planted(conv, seen_as(same, dilation=1), dilation=2), SIGNALS,
           law="adjoint", diagnosis="option dilation"),
    Mutant("conv: stride ignored", planted(conv, seen_as(stride_ignored), stride=2), SIGNALS, law="adjoint"),
    Mutant("conv: padding mode ignored", planted(conv_wrap, mode_ignored, mode="wrap"), SIGNALS,
           law="adjoint", diagnosis="option mode"),
    Mutant("conv: dW transposed in its channels", planted(conv, changed_W(lambda dW: dW.swapaxes(1, 2))), SQUARE,
           law="adjoint", diagnosis="transposed"),
    Mutant("conv: dW with its taps reversed", planted(conv, changed_W(lambda dW: dW[::-1])), SIGNALS,
           law="adjoint", diagnosis="reversed along axis"),
    Mutant("conv: db summed over the wrong axes", planted(conv_bias, changed_b(lambda dY: dY.sum((0, 2)))), BIASED,
           law="adjoint", diagnosis="sums over axis"),
    Mutant("conv: db averaged over positions", planted(conv_bias, changed_b(lambda dY: dY.mean(1).sum(0))),
           normal((2, 7, 4), (3, 4, 5), (5,)), law="adjoint", diagnosis="averages over"),
    Mutant("conv: wrong for even kernels", planted(conv, seen_as(even_kernels_shifted)), SIGNALS, law="sizes"),
    Mutant("conv: wrong for odd sizes", planted(conv, seen_as(as_for_even_sizes), stride=2), EVEN, law="sizes"),
    Mutant("conv: groups of dW mixed up", planted(conv_groups, groups_mixed), GROUPED,
           law="adjoint", diagnosis="permuted"),
    Mutant("conv: dilation ignored in two dimensions", planted(conv_2d, dilation_ignored_2d), images_dilated,
           law="adjoint", diagnosis="option dilation"),
    Mutant("conv: dW transposed in two dimensions", planted(conv_2d, kernel_transposed_2d), IMAGES,
           law="adjoint", diagnosis="transposed"),
]
