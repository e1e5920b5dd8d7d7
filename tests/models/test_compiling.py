"""What compiled code calls where it stands, and the compiler that is not imported for its sake."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg.models.cpu.bfloat16 import has_bfloat16
from mmseg.models.cpu.linear import linear
from mmseg.models.layers.compiling import outside_graphs
from tests.tools.processes import ROOT, environment


def test_a_function_is_left_out_of_compiled_code():
    seen = []

    @outside_graphs
    def double(x: torch.Tensor, times: int = 1) -> torch.Tensor:
        """Doubles."""
        seen.append(torch.compiler.is_compiling())
        return x * 2**times

    def formula(x: torch.Tensor, times: int) -> torch.Tensor:
        return double(x.sin(), times=times).cos()

    compiled, x = torch.compile(formula, backend="eager"), torch.randn(3)
    for times in (1, 2, 3):
        assert torch.equal(compiled(x, times), formula(x, times))
    assert seen == [False] * 6  # its own lines run every time
    assert double.__name__ == "double" and double.__doc__ == "Doubles."


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_processor_can_do_is_not_asked_in_compiled_code(dtype):
    has_bfloat16.cache_clear()
    x = torch.randn(4, 8, dtype=dtype)
    compiled = torch.compile(lambda x: linear(x, x), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), x @ x.t(), rtol=0.02, atol=0.02)


def test_testing_does_not_import_the_compiler():
    code = (
        "import sys, torch; from mmseg.models import build_segmentor;"
        "head = dict(type='SegFormerHead', in_channels=[32, 64, 160, 256], channels=128, num_classes=3);"
        "model = build_segmentor(dict(type='FrameSegmentor', backbone=dict(type='mit_b0'), decode_head=head)).eval();"
        "model.stream().step(torch.zeros(3, 64, 64));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_without_a_compiler_there_is_one_error(tmp_path: Path):
    """In a process of its own, with no memory of what was compiled before."""
    program = (
        "from mmseg.errors import ConfigError\n"
        "from mmseg.models.layers.compiling import require_compiler\n"
        "try:\n    require_compiler('cpu')\n"
        "except ConfigError as error:\n    print(error.expected)\n"
    )
    bare = {**environment(), "CXX": str(tmp_path / "no_compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=bare)
    assert result.stdout.startswith("a C++ compiler"), result.stderr
