"""Losses with wrong rules.

Axes: n examples, c classes. With p = softmax(logits) and y the labels one-hot, the cross entropy −log p[n, label] of
each example has the adjoint dlogits = (p − y) dL[n]; weights and means multiply it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant
from tests.certify.words import wide

IGNORED = -1        # a label that stands for none
Z = 0.3             # the weight of the squared log-sum-exp


def log_normalizer(logits):
    """log Σ_c exp logits[n, c]."""
    top = lax.stop_gradient(logits.max(-1))
    return top + jnp.log(jnp.exp(logits - top[:, None]).sum(-1))


def softmax(logits):
    return jnp.exp(logits - log_normalizer(logits)[:, None])


def one_hot(labels, logits):
    return (labels[:, None] == jnp.arange(logits.shape[1], dtype=labels.dtype)).astype(logits.dtype)


def each(logits, labels):
    """The cross entropy of every example; zero where the label stands for none."""
    y = one_hot(labels, logits)
    return y.sum(1) * log_normalizer(logits) - (y * logits).sum(1)


def mean_loss(logits, labels):
    return each(logits, labels).mean()


def sum_loss(logits, labels):
    return each(logits, labels).sum()


def smoothed_loss(logits, labels, label_smoothing=0.0):
    """With a share of every label spread over the classes."""
    c = logits.shape[1]
    y = (1 - label_smoothing) * one_hot(labels, logits) + label_smoothing / c
    return (log_normalizer(logits) - (y * logits).sum(1)).sum()


def z_loss(logits, labels):
    return (each(logits, labels) + Z * log_normalizer(logits) ** 2).sum()


def weighted_loss(logits, labels, weights):
    """Σ w L / Σ w."""
    return (weights * each(logits, labels)).sum() / weights.sum()


def loss_and_normalizer(logits, labels):
    """Each example's cross entropy, and its log-sum-exp."""
    return each(logits, labels), log_normalizer(logits)


def wide_loss(logits, labels):
    """Computed in float32 of narrower logits."""
    return each(wide(logits), labels)


def squared_error(prediction, target):
    """Σ (prediction − target)²."""
    return ((prediction - target) ** 2).sum()


def huber(residual):
    """Quadratic up to one, linear beyond."""
    size = jnp.abs(residual)
    return jnp.where(size <= 1, residual**2 / 2, size - 0.5)


def divergence(logits, target):
    """Σ q (log q − log p) with q = softmax(target)."""
    log_q = target - log_normalizer(target)[:, None]
    log_p = logits - log_normalizer(logits)[:, None]
    return (jnp.exp(log_q) * (log_q - log_p)).sum(1)


def cosine(a, b):
    """⟨a, b⟩ / ‖a‖ ‖b‖ of each row."""
    return (a * b).sum(-1) * lax.rsqrt((a * a).sum(-1) * (b * b).sum(-1))


def binary_loss(logits, targets, pos_weight=1.0):
    """−w t log σ(x) − (1 − t) log(1 − σ(x))."""
    return pos_weight * targets * jax.nn.softplus(-logits) + (1 - targets) * jax.nn.softplus(logits)


def classes(dlogits):
    """The rule whose cotangent of the logits is `dlogits(logits, labels, dL)`."""
    return lambda residuals, dL: (dlogits(*residuals, dL), None)


def right(logits, labels):
    """The adjoint of a sum of cross entropies, labels that stand for none among them."""
    y = one_hot(labels, logits)
    return softmax(logits) * y.sum(1, keepdims=True) - y


def with_ignored(logits, labels, dL):
    return (softmax(logits) - one_hot(labels, logits)) * dL[:, None]


def off_by_one(logits, labels, dL):
    return right(logits, (labels + 1) % logits.shape[1]) * dL[:, None]


def first_for_all(logits, labels, dL):
    return right(logits, labels) * dL[0]


def true_class_rounded(logits, labels, dL):
    """p rounded to the logits' dtype before the label is taken off: nothing is left of 1 − p."""
    p = softmax(logits.astype(dL.dtype)).astype(logits.dtype)
    y = one_hot(labels, p)
    return (p * y.sum(1, keepdims=True) - y) * dL[:, None].astype(p.dtype)


def smoothing_ignored(label_smoothing, residuals, dL):
    return right(*residuals) * dL, None


def weighted_rule(dlogits_divisor, through_divisor):
    def backward(residuals, dL):
        logits, labels, weights = residuals
        losses = each(logits, labels)
        above = losses - (weights * losses).sum() / weights.sum() if through_divisor else losses
        dlogits = weights[:, None] * right(logits, labels) * dL / dlogits_divisor(weights)
        return dlogits, None, above * dL / weights.sum()
    return backward


def normalizer_dropped(residuals, cotangents):
    return right(*residuals) * cotangents[0][:, None], None


def divergence_rule(change):
    def backward(residuals, dL):
        logits, target = residuals
        p, q = softmax(logits), softmax(target)
        dtarget = q * (jnp.log(q / p) - divergence(logits, target)[:, None]) * dL[:, None]
        return change((p - q) * dL[:, None], dtarget)
    return backward


def cosine_swapped(residuals, dY):
    return jax.vjp(cosine, *residuals)[1](dY)[::-1]


def through_probabilities(pos_weight, residuals, dL):
    """The slope of the logarithm times that of σ: ∞ · 0 where σ(x) is 1."""
    x, t = residuals
    p = jax.nn.sigmoid(x)
    dp = (1 - t) / (1 - p) - pos_weight * t / p
    return dp * p * (1 - p) * dL, binary_targets(x, pos_weight) * dL


def weight_ignored(pos_weight, residuals, dL):
    x, t = residuals
    return (jax.nn.sigmoid(x) - t) * dL, binary_targets(x, 1.0) * dL


def binary_targets(x, pos_weight):
    return pos_weight * jax.nn.softplus(-x) - jax.nn.softplus(x)


def error_rule(dprediction, dtarget):
    """The rule of the squared error, with a factor for each of its arguments."""
    def backward(residuals, dL):
        prediction, target = residuals
        return dprediction * (prediction - target) * dL, dtarget * (prediction - target) * dL
    return backward


def labelled(*labels, scale=1.0, weighted=False):
    """(logits[n, 7], labels[n]), and positive weights[n]."""
    def arguments(rng):
        n = len(labels)
        weights = (rng.uniform(1.0, 4.0, n),) if weighted else ()
        return scale * rng.standard_normal((n, 7)), np.array(labels, np.int32), *weights
    return arguments


def probable(rng):
    """Logits in favour of the label, though not by much."""
    labels = np.array([2, 0, 6, 3, 3], np.int32)
    return 0.3 * rng.standard_normal((5, 7)) + 1.5 * np.eye(7)[labels], labels


def binary(rng):
    return rng.standard_normal((5, 3)), rng.uniform(0.1, 0.9, (5, 3))


def small(rng):
    return (rng.uniform(-0.6, 0.6, (5, 3)),)


LABELLED = labelled(2, 0, 6, 3, 3)
PARTLY = labelled(2, IGNORED, 6, 3, IGNORED)
WEIGHTED = labelled(2, 0, 6, 3, 3, weighted=True)
PAIRS = normal((5, 3), (5, 3))

CROSS_ENTROPY = [
    Mutant("cross_entropy: not divided by n",
           planted(mean_loss, classes(lambda logits, labels, dL: right(logits, labels) * dL)), LABELLED,
           law="adjoint", diagnosis="times too large"),
    Mutant("cross_entropy: divided by n where it is a sum",
           planted(sum_loss, classes(lambda logits, labels, dL: right(logits, labels) * dL / len(labels))), LABELLED,
           law="adjoint", diagnosis="averages over"),
    Mutant("cross_entropy: label_smoothing ignored", planted(smoothed_loss, smoothing_ignored, label_smoothing=0.4),
           LABELLED, law="adjoint", diagnosis="option label_smoothing"),
    Mutant("cross_entropy: z_loss without a derivative",
           planted(z_loss, classes(lambda logits, labels, dL: right(logits, labels) * dL)), LABELLED,
           law="adjoint", diagnosis="derivative through"),
    Mutant("cross_entropy: labels off by one", planted(each, classes(off_by_one)), LABELLED, law="adjoint"),
    Mutant("cross_entropy: ignored labels get a gradient", planted(each, classes(with_ignored)), PARTLY,
           law="adjoint", diagnosis="mask"),
    Mutant("cross_entropy: the first cotangent for all", planted(each, classes(first_for_all)), LABELLED,
           law="adjoint", diagnosis="first element"),
    Mutant("cross_entropy: true class rounded before the subtraction", planted(wide_loss, classes(true_class_rounded)),
           probable, dtypes=("bfloat16",), law="half precision"),
    Mutant("cross_entropy: divided by n where weights are given",
           planted(weighted_loss, weighted_rule(len, through_divisor=True)), WEIGHTED,
           law="adjoint", diagnosis="times"),
    Mutant("cross_entropy: no derivative through the sum of the weights",
           planted(weighted_loss, weighted_rule(jnp.sum, through_divisor=False)), WEIGHTED,
           law="adjoint", diagnosis="derivative through"),
    Mutant("cross_entropy: cotangent of the normalizer dropped", planted(loss_and_normalizer, normalizer_dropped),
           LABELLED, law="adjoint", diagnosis="output"),
]

OTHERS = [
    Mutant("squared error: factor 2 missing", planted(squared_error, error_rule(1, -1)), PAIRS,
           law="adjoint", diagnosis="times"),
    Mutant("squared error: sign of dtarget", planted(squared_error, error_rule(2, 2)), PAIRS,
           law="adjoint", diagnosis="-1 times"),
    Mutant("huber: quadratic throughout", planted(huber, lambda residuals, dL: (residuals[0] * dL,)), small,
           law="points"),
    Mutant("huber: quadratic below −1",
           planted(huber, lambda residuals, dL: (jnp.minimum(residuals[0], 1) * dL,)), small, law="points"),
    Mutant("divergence: dtarget zero", planted(divergence, divergence_rule(lambda d, dt: (d, jnp.zeros_like(dt)))),
           PAIRS, law="adjoint", diagnosis="zero"),
    Mutant("divergence: dlogits of the other sign", planted(divergence, divergence_rule(lambda d, dt: (-d, dt))), PAIRS,
           law="adjoint", diagnosis="-1 times"),
    Mutant("cosine: arguments swapped", planted(cosine, cosine_swapped), PAIRS, law="adjoint", diagnosis="swapped"),
    Mutant("binary loss: not finite where the sigmoid is one", planted(binary_loss, through_probabilities), binary,
           law="points", diagnosis="not finite"),
    Mutant("binary loss: pos_weight ignored", planted(binary_loss, weight_ignored, pos_weight=3.0), binary,
           law="adjoint", diagnosis="option pos_weight"),
]

MUTANTS = [*CROSS_ENTROPY, *OTHERS]
