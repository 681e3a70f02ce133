"""Floor 1: layers, pure functions with a spelled adjoint. Imports only the floor below."""

from .affine import AffineParams as AffineParams
from .affine import affine as affine
from .einsum import einsum as einsum
