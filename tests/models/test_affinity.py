"""Cross-frame affinities: the official intermediate numbers, fast against plain with gradients, exact selection."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmseg.models import build_head
from mmseg.models.decode_heads.mrcfa.affinity import CrossFrameAffinity
from mmseg.models.decode_heads.mrcfa.refinement import AffinityRefinement
from mmseg.models.layers.formulation import plain_formulation
from tests.golden_cases import Case, build_filled

HEAD_CASES = ["mrcfa_b0_head", "mrcfa_b1_head", "mrcfa_b1_head_resized"]


def affinity_of(case: Case) -> CrossFrameAffinity:
    return build_filled(lambda c: CrossFrameAffinity(c["dim"], c["backbone"]), case.config)


def record(module: torch.nn.Module, found: dict[str, torch.Tensor], before: str | None, after: str | None) -> None:
    """Keep the input of `module` under the name `before` and its output under `after`."""

    def hook(_module, inputs, output):
        found.update({name: value for name, value in ((before, inputs[0]), (after, output)) if name})

    module.register_forward_hook(hook)


@pytest.mark.parametrize("name", ["affinity_b1", "affinity_b1_resized"])
@torch.no_grad()
def test_every_intermediate_of_the_plain_formulation_is_official(name):
    case = Case("mrcfa", name)
    module, inputs, found = affinity_of(case), case.inputs(), {}
    for layer, stride in ((4, "s32"), (3, "s16"), (2, "s8")):
        record(getattr(module.hpn, f"encoder_layer{layer}"), found, f"affinity.{stride}", f"refined.{stride}")
    record(module.hpn.encoder_layer4to3, found, None, "mixed.s16")
    record(module.hpn.encoder_layer3to2, found, None, "mixed.s8")
    grids = {"q1": "t8", "q2": "t16", "q3": "t32", "k1": "r8", "k2": "r16", "k3": "r32"}
    projected: dict[str, torch.Tensor] = {}
    for projection in grids:
        record(getattr(module, projection), projected, None, projection)
    with plain_formulation():
        module(**inputs)
    found.update({p: projected[p].view_as(inputs[g].movedim(2, -1)) for p, g in grids.items()})
    assert len(found) == 14
    for output, value in found.items():
        case.check(output, value)


@pytest.mark.parametrize("name", ["refine_b0", "refine_b1"])
def test_fast_refinement_has_the_gradients_of_the_plain_one(name):
    case = Case("mrcfa", name)
    module = build_filled(lambda c: AffinityRefinement(c["backbone"]), case.config)
    compare_formulations(module, lambda inputs: module(**inputs), case.inputs())


@pytest.mark.parametrize("name", ["affinity_b1", "affinity_b1_resized"])
def test_fast_affinities_have_the_gradients_of_the_plain_ones(name):
    case = Case("mrcfa", name)
    module = affinity_of(case)
    compare_formulations(module, lambda inputs: module(**inputs)[0], case.inputs())


@pytest.mark.parametrize("name", HEAD_CASES)
def test_fast_head_has_the_gradients_of_the_plain_one(name):
    case = Case("mrcfa", name)
    head = build_filled(build_head, case.config, mode="train")
    # maps as the backbone gives them: channels last in memory
    feats = {k: v.contiguous(memory_format=torch.channels_last) for k, v in case.inputs().items()}
    compare_formulations(head, lambda x: head(list(x.values()), case["batch_size"], case["num_clips"]), feats)


def compare_formulations(module: torch.nn.Module, call, inputs: dict[str, torch.Tensor]) -> None:
    """Outputs and the gradients of all inputs and parameters, fast against plain."""
    fast = outputs_and_gradients(module, call, inputs)
    with plain_formulation():
        plain = outputs_and_gradients(module, call, inputs)
    assert fast.keys() == plain.keys()
    largest = max(value.abs().max() for name, value in plain.items() if name != "output")
    for name, expected in plain.items():
        # a gradient that is zero in exact arithmetic is rounding noise of the others
        scale = expected.abs().max() if name == "output" else max(expected.abs().max(), 1e-2 * largest)
        assert (fast[name] - expected).abs().max() <= 2e-4 * scale, name


def outputs_and_gradients(module: torch.nn.Module, call, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    module.zero_grad()
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    output = call(leaves)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * weight).sum().backward()
    gradients = {name: leaf.grad for name, leaf in (*leaves.items(), *module.named_parameters())}
    return {"output": output.detach(), **{name: g.clone() for name, g in gradients.items() if g is not None}}


def test_the_number_of_tokens_in_a_chunk_changes_nothing(monkeypatch):
    case = Case("mrcfa", "affinity_b1")
    module, inputs = affinity_of(case), case.inputs()
    with torch.no_grad():
        whole, _ = module(**inputs)
        monkeypatch.setattr("mmseg.models.decode_heads.mrcfa.affinity._CHUNK", 7)
        parts, _ = module(**inputs)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_no_graph_goes_through_the_selection():
    case = Case("mrcfa", "affinity_b1")
    module, inputs = affinity_of(case), case.inputs()
    q3 = module.q3(inputs["t32"][:, 0].flatten(2).transpose(1, 2))
    k3 = module.k3(inputs["r32"].flatten(3).transpose(2, 3))
    assert q3.requires_grad
    index = module.select(q3, k3, (4, 5), (4, 5))
    assert not index.requires_grad
    assert index.shape == (1, 3, case["facts"]["selected"])
    assert (index.diff(dim=2) > 0).all()


# Each lets float32 products be rounded on some machine; the second cannot be undone within a process.
PRECISIONS = ["torch.set_float32_matmul_precision('medium')"]
if hasattr(torch.backends.mkldnn, "matmul"):  # torch 2.9 and later
    PRECISIONS.append("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'")


@pytest.mark.parametrize("setting", PRECISIONS)
def test_selection_is_exact_whatever_precision_products_have(setting):
    program = (
        f"import torch; {setting}\n"
        "from tests.golden_cases import Case\n"
        "from tests.models.test_affinity import affinity_of\n"
        "case = Case('mrcfa', 'affinity_b1')\n"
        "module, inputs = affinity_of(case), case.inputs()\n"
        "with torch.no_grad(): case.check('mask', module(**inputs)[1])\n"
        "q3 = module.q3(inputs['t32'][:, 0].flatten(2).transpose(1, 2)).detach()\n"
        "k3 = module.k3(inputs['r32'].flatten(3).transpose(2, 3)).detach()\n"
        "exact = (k3.double().flatten(1, 2) @ q3.double().transpose(1, 2)).topk(5, dim=2).values.sum(2).float()\n"
        "assert torch.equal(module.scores(q3, k3, (4, 5), (4, 5)).flatten(), exact.flatten())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
