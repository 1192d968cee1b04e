"""Networks by name: each builds what its title says, and a name that is not there is refused."""

import subprocess
import sys

import pytest

from fedutils.errors import InputError
from fedutils.models.registry import NETWORKS, build_network
from fedutils.models.unet import build_unet

# The narrowest that each builder takes, so that the test is about names.
OPTIONS = {
    "cnn": {},
    "separable_cnn": {"widths": (8, 16)},
    "unet": {"depth": 2, "width": 4},
    "unet_plus_plus": {"depth": 2, "width": 4},
    "attention_unet": {"depth": 3, "width": 4},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_by_its_name(name):
    options = OPTIONS.get(name, {"alpha": 0.25})
    model = build_network(name, (32, 32, 1), 3, seed=1, **options)
    sides = (None,) if NETWORKS[name].task == "classification" else (None, 32, 32)
    assert model.input_shape == (None, 32, 32, 1) and model.outputs[-1].shape == (*sides, 3)


def test_networks_of_one_builder_differ():
    counts = {
        name: build_network(name, (32, 32, 1), 3, alpha=0.25).count_params()
        for name in NETWORKS
        if name.startswith("mobilenet")
    }
    assert len(set(counts.values())) == len(counts) == 4
    assert max(counts, key=counts.get) == "mobilenet_v3_se_cbam"
    assert min(counts, key=counts.get) == "mobilenet_v3"


def test_options_reach_the_builder():
    shape = (16, 16, 8, 2)
    expected = build_unet(shape, 2, depth=2, width=4).count_params()
    assert build_network("unet", shape, 2, depth=2, width=4).count_params() == expected


def test_titles_are_told_apart():
    assert len({network.title for network in NETWORKS.values()}) == len(NETWORKS)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"expected one of cnn, .*found 'resnet'"):
        build_network("resnet", (32, 32, 1), 3)


def test_the_names_alone_load_no_tensorflow():
    code = "import sys, fedutils.models.registry; print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
