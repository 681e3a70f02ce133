"""Floor 1: layers, pure functions with a spelled adjoint. Imports only the floor below."""

from .affine import AffineParams as AffineParams
from .affine import affine as affine
from .einsum import einsum as einsum
from .normalization import NormParams as NormParams
from .normalization_batch import BatchState as BatchState
from .normalization_batch import batch_norm as batch_norm
from .normalization_group import group_norm as group_norm
