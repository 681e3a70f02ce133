"""Floor 0: maps and their adjoints. Imports only jax."""

from .any_mode import AnyMode as AnyMode
from .any_mode import any_mode as any_mode
from .contract import contract as contract
from .cotangent import Like as Like
from .cotangent import cotangent_like as cotangent_like
from .cotangent import like as like
from .cotangent import sum_leading as sum_leading
from .linear_call import linear_call as linear_call
from .partitioned import layout_of as layout_of
from .partitioned import may_be_sharded as may_be_sharded
from .partitioned import partitioned as partitioned
from .partitioned import partitioned_trees as partitioned_trees
from .space import inner as inner
from .space import is_inexact as is_inexact
from .space import norm as norm
from .space import random_like as random_like
from .space import wide as wide
from .space import zeros_like as zeros_like
from .transpose import adjoint as adjoint
from .transpose import transpose as transpose
