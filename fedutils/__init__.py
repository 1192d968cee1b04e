"""Federated brain-tumour imaging: the module behind the notebooks of this thesis.

Importing `fedutils` imports nothing heavy: TensorFlow is loaded by the submodule that first needs it.
"""

import os

__version__ = "0.1.0"

# TensorFlow and Keras read these once, when they are first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
