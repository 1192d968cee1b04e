"""The networks by name: one list for notebooks, experiments and tables."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from fedutils.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Network:
    """A network as tables call it, and where it is built.

    Attributes
    ----------
    title : str
    task : {"classification", "segmentation"}
    builder : str
        ``module:function`` within `fedutils.models`; imported when the network is built, since the names
        alone need no TensorFlow.
    options : dict
        What sets it apart from others of the same builder.
    """

    title: str
    task: str
    builder: str
    options: dict = field(default_factory=dict)


def _mobilenet(words, attention):
    title = f"MobileNetV3 small{words}"
    return Network(title, "classification", "mobilenet:build_mobilenet_v3", {"attention": attention})


NETWORKS = {
    # The filters of the first hospital consoles.
    "cnn": Network("two-convolution CNN", "classification", "classification:build_cnn", {"filters": (16, 8)}),
    "separable_cnn": Network("separable CNN", "classification", "classification:build_separable_cnn"),
    "mobilenet_v3": _mobilenet("", "none"),
    "mobilenet_v3_se": _mobilenet(" + SE", "se"),
    "mobilenet_v3_cbam": _mobilenet(" + CBAM", "cbam"),
    "mobilenet_v3_se_cbam": _mobilenet(" + SE + CBAM", "se+cbam"),
    "unet": Network("U-Net", "segmentation", "unet:build_unet"),
    "unet_plus_plus": Network("U-Net++", "segmentation", "unet_plus_plus:build_unet_plus_plus"),
    "attention_unet": Network("Attention U-Net", "segmentation", "unet:build_attention_unet"),
}


def build_network(
    name: str, input_shape: tuple[int | None, ...], num_outputs: int, **options
) -> "keras.Model":
    """Build a network by its name in `NETWORKS`.

    Parameters
    ----------
    name : str
    input_shape : tuple of int
        (height, width, channels), or (x, y, z, channels) of a segmentation in 3-D.
    num_outputs : int
        Classes, or regions.
    **options
        Of the network's builder, such as ``seed``, ``widths`` or ``depth``.

    Raises
    ------
    InputError
        If there is no such network, or its builder refuses an argument.
    """
    if name not in NETWORKS:
        raise InputError(
            f"network: expected one of {', '.join(NETWORKS)}, found {name!r}; choose one of them"
        )
    network = NETWORKS[name]
    module, function = network.builder.split(":")
    build = getattr(import_module(f"fedutils.models.{module}"), function)
    return build(input_shape, num_outputs, **(network.options | options))
