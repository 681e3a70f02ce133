"""Floor 1: layers, pure functions with a spelled adjoint. Imports only the floor below."""

from .activation import gelu as gelu
from .activation import relu as relu
from .activation import silu as silu
from .activation_gated import geglu as geglu
from .activation_gated import swiglu as swiglu
from .affine import AffineParams as AffineParams
from .affine import affine as affine
from .convolution import ConvParams as ConvParams
from .convolution import conv as conv
from .convolution_transpose import conv_transpose as conv_transpose
from .dropout import dropout as dropout
from .einsum import einsum as einsum
from .embedding import embed as embed
from .loss import cross_entropy as cross_entropy
from .normalization import NormParams as NormParams
from .normalization_batch import batch_norm as batch_norm
from .normalization_group import group_norm as group_norm
from .normalization_layer import layer_norm as layer_norm
from .normalization_layer import rms_norm as rms_norm
from .normalization_state import BatchState as BatchState
from .pooling import max_pool as max_pool
from .pooling_average import avg_pool as avg_pool
from .pooling_average import global_avg_pool as global_avg_pool
from .rotary import rotary as rotary
from .softmax import log_softmax as log_softmax
from .softmax import softmax as softmax
