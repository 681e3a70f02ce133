"""Proves backward rules. Imports only `adjoint`; works on anyone's function."""

from .certificate import AdjointError as AdjointError
from .certificate import Certificate as Certificate
from .certificate import Finding as Finding
from .certificate import Verdict as Verdict
from .certify import CONTEXTS as CONTEXTS
from .certify import LAWS as LAWS
from .certify import assert_adjoint as assert_adjoint
from .certify import certify as certify
from .errors import BadInput as BadInput
