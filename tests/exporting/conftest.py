"""What the exporter of PyTorch makes anew for every graph, and is the same for all of them."""

import functools

import pytest
from torch.onnx._internal.exporter import _registration


@pytest.fixture(scope="package", autouse=True)
def one_table_of_operators():
    """The table of ONNX functions, which the exporter reads from two thousand sources: a second for every graph."""
    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(_registration.ONNXRegistry.from_torchlib)
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(read))
        yield
