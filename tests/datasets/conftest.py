"""Small data for the tests of this folder."""

import pytest

from tests.datasets.vspw_folder import write_vspw


@pytest.fixture
def root(tmp_path):
    """Videos a and b for training, c for validation, d without masks."""
    return write_vspw(tmp_path, train=dict(a=12, b=11), val=dict(c=5), test=dict(d=4))
