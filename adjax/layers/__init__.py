"""Floor 1: layers, pure functions with a spelled adjoint. Imports only the floor below."""

from .affine import AffineParams as AffineParams
from .affine import affine as affine
from .convolution import ConvParams as ConvParams
from .convolution import conv as conv
from .convolution_transpose import conv_transpose as conv_transpose
from .einsum import einsum as einsum
from .loss import cross_entropy as cross_entropy
from .loss_linear import linear_cross_entropy as linear_cross_entropy
from .normalization import NormParams as NormParams
from .normalization_batch import BatchState as BatchState
from .normalization_batch import batch_norm as batch_norm
from .normalization_group import group_norm as group_norm
from .pooling import max_pool as max_pool
from .pooling_average import avg_pool as avg_pool
from .pooling_average import global_avg_pool as global_avg_pool
from .softmax import log_softmax as log_softmax
from .softmax import softmax as softmax
