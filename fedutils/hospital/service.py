"""The service that `fl_server.thrift` describes, as Python classes, and how a refusal is made.

References
----------
.. [1] M. Slee, A. Agarwal and M. Kwiatkowski, "Thrift: Scalable Cross-Language Services Implementation",
   Facebook, 2007.
"""

from pathlib import Path

import thriftpy2

IDL = thriftpy2.load(str(Path(__file__).with_name("fl_server.thrift")), module_name="fl_server_thrift")
FLServer = IDL.FLServer
Layer, Model, Receipt, Refused = IDL.Layer, IDL.Model, IDL.Receipt, IDL.Refused
CHUNK_BYTES: int = IDL.CHUNK_BYTES
DEFAULT_PORT = 9095


def refuse(reason: str, message: str) -> Exception:
    """Return the exception that refuses a call.

    Parameters
    ----------
    reason : str
        A name of the enumeration ``Reason``, such as ``STALE``.
    message : str
        A line for the operator: what was expected, what was found, what to do.
    """
    return Refused(reason=getattr(IDL.Reason, reason), message=message)


def name_reason(refused: Exception) -> str:
    """Return the name of a refusal's reason; of one that this version does not know, its number."""
    return IDL.Reason._VALUES_TO_NAMES.get(refused.reason, str(refused.reason))
