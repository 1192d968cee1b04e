"""The import of TensorFlow Federated: ``from fedutils.tff import tff``.

TFF 0.87, the last release, was made for TensorFlow 2.14 and imports packages that a present-day
environment does not have or cannot load. Nothing in TFF is patched here; three chains of imports,
of which TFF needs nothing in this project, are cut before it loads:

- JAX: only the front end of ``tff.jax.computation``;
- Vizier: only ``tff.learning.programs.train_model_with_vizier``;
- the top-level ``__init__`` of tensorflow_privacy (estimators) and of
  tensorflow_model_optimization (pruning of legacy Keras models). TFF uses only their subpackages
  ``dp_query`` and ``tensor_encoding``, and those are imported for real.

Until `fedutils.runtime.use` is called, TFF's own default stands: a C++ process that it starts at
the first computation.
"""

import atexit
import importlib
import importlib.util
import sys
import types
import warnings

from fedutils.quiet import without_harmless_lines

# The names that TFF reads from the top level of tensorflow_privacy, by the module that has them.
_PRIVACY_NAMES = {
    "dp_query": ("DPQuery", "SumAggregationDPQuery"),
    "distributed_discrete_gaussian_query": ("DistributedDiscreteGaussianSumQuery",),
    "distributed_skellam_query": ("DistributedSkellamSumQuery",),
    "gaussian_query": ("GaussianSumQuery",),
    "no_privacy_query": ("NoPrivacySumQuery",),
    "normalized_query": ("NormalizedQuery",),
    "quantile_adaptive_clip_sum_query": ("QuantileAdaptiveClipSumQuery",),
    "quantile_adaptive_clip_tree_query": ("QAdaClipTreeResSumQuery",),
    "quantile_estimator_query": ("QuantileEstimatorQuery", "NoPrivacyQuantileEstimatorQuery"),
    "restart_query": ("RestartQuery",),
    "tree_aggregation_query": ("TreeResidualSumQuery", "TreeCumulativeSumQuery"),
    "tree_range_query": ("TreeRangeSumQuery",),
}


def _install_placeholder(name, *attributes):
    """Put an empty module with empty classes where TFF expects `name`, unless one is loaded."""
    if name in sys.modules:
        return
    module = types.ModuleType(name, "Placeholder of fedutils.tff: the package is not installed.")
    for attribute in attributes:
        setattr(module, attribute, type(attribute, (), {}))
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def _install_namespace(name):
    """Load package `name` without running its ``__init__``: its subpackages import as usual."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}: run 'make setup'", name=name)
    module = types.ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations)
    module.__spec__ = spec
    sys.modules[name] = module


def _import_privacy():
    """Import tensorflow_privacy without its estimators, with the names that TFF reads there."""
    sys.skip_tf_privacy_import = True  # the package's own switch
    package = importlib.import_module("tensorflow_privacy")
    for module_name, names in _PRIVACY_NAMES.items():
        module = importlib.import_module(f"tensorflow_privacy.privacy.dp_query.{module_name}")
        for name in names:
            setattr(package, name, getattr(module, name))
        if module_name == "restart_query":
            package.restart_query = module  # TFF reads this module itself, too


def _allow_deep_messages():
    """Lift protobuf's nesting limit of 100, which TFF's larger aggregators exceed.

    Only the upb implementation (protobuf >= 4) has the switch; the others need none.
    """
    try:
        from google._upb import _message
    except ImportError:
        return
    _message.SetAllowOversizeProtos(True)


def _import_tff():
    if "tensorflow_federated" not in sys.modules:
        # A plain import that failed leaves parts behind, which a second import cannot take up.
        for name in [n for n in sys.modules if n.startswith("tensorflow_federated.")]:
            del sys.modules[name]
        _install_placeholder("tensorflow_federated.python.core.environments.jax")
        if importlib.util.find_spec("vizier") is None:
            _install_placeholder("vizier")
            _install_placeholder("vizier.pyvizier", "TrialSuggestion", "Measurement")
            _install_placeholder("vizier.client")
            _install_placeholder("vizier.client.client_abc", "StudyInterface", "TrialInterface")
        _install_namespace("tensorflow_model_optimization")
        _import_privacy()
    _allow_deep_messages()
    return importlib.import_module("tensorflow_federated")


with without_harmless_lines(), warnings.catch_warnings():
    # tensorflow_probability compares versions through distutils, which is deprecated but works.
    warnings.filterwarnings("ignore", "distutils Version classes", DeprecationWarning)
    tff = _import_tff()

# TFF's default ends its process in a finaliser, which fails once Python has taken the modules apart.
_default = importlib.import_module("tensorflow_federated.python.core.impl.context_stack.set_default_context")
atexit.register(_default.set_no_default_context)

__all__ = ["tff"]
