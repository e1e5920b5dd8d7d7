"""Cross-frame affinities: the official intermediate numbers, the product against the reference, exact selection."""

from __future__ import annotations

import functools
import sys

import pytest
import torch

from mmseg.models import build_head
from mmseg.models.decode_heads.mrcfa.affinity import CrossFrameAffinity, _planes
from mmseg.models.decode_heads.mrcfa.refinement import AffinityRefinement
from tests.golden_cases import Case, build_filled
from tests.reference import mrcfa as reference
from tests.tools.processes import ROOT, finish

HEAD_CASES = ["mrcfa_b0_head", "mrcfa_b1_head", "mrcfa_b1_head_resized"]
AFFINITY_CASES = ["affinity_b1", "affinity_b1_resized"]
REFINE_CASES = ["refine_b0", "refine_b1"]
Inputs = dict[str, torch.Tensor]


def affinity_of(case: Case) -> CrossFrameAffinity:
    return build_filled(lambda c: CrossFrameAffinity(c["dim"], c["backbone"]), case.config)


def refinement_of(case: Case) -> AffinityRefinement:
    return build_filled(lambda c: AffinityRefinement(c["backbone"]), case.config)


def affinities(module: CrossFrameAffinity, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The product's affinities (B, R, h8 * w8, s), and its selection as a mask (B, R, N)."""
    references = [inputs[name] for name in ("r8", "r16", "r32")]
    keys = module.project_references(*(r.flatten(0, 1) for r in references))
    keys = {name: key.unflatten(0, references[0].shape[:2]) for name, key in keys.items()}
    targets = [inputs[name][:, 0] for name in ("t8", "t16", "t32")]
    grid = tuple(references[0].shape[-2:])
    affinity, index = module.attend(*targets, keys, grid)
    mask = torch.zeros(*index.shape[:2], grid[0] * grid[1], dtype=torch.bool)
    return affinity.transpose(1, 2), mask.scatter_(2, index, True)


def reference_affinities(module: CrossFrameAffinity, inputs: Inputs) -> Inputs:
    return reference.affinities(module, **{k: v[:, 0] if k.startswith("t") else v for k, v in inputs.items()})


def refined(module: AffinityRefinement, inputs: Inputs) -> torch.Tensor:
    """What the product makes of maps (n, 1, h, w); it takes them as planes (1, n, h, w), channels last in memory."""
    planes = (inputs[name].transpose(0, 1) for name in ("x32", "x16", "x8"))
    return module(*(p.contiguous(memory_format=torch.channels_last) for p in planes)).transpose(0, 1)


# ---------------------------------------------------------------------- official numbers


@pytest.mark.parametrize("name", AFFINITY_CASES)
@torch.no_grad()
def test_every_intermediate_of_the_reference_is_official(name):
    case = Case("mrcfa", name)
    found = reference_affinities(affinity_of(case), case.inputs())
    assert len(case["outputs"]) == 18
    for output, spec in case["outputs"].items():
        case.check(output, found[output].reshape(spec["shape"]))


@pytest.mark.parametrize("name", AFFINITY_CASES)
@torch.no_grad()
def test_affinities_are_official(name):
    case = Case("mrcfa", name)
    module, inputs = affinity_of(case), case.inputs()
    affinity, mask = affinities(module, inputs)
    case.check("affinity", affinity)
    case.check("softmax", affinity.softmax(dim=3))
    case.check("mask", mask)
    assert mask.sum(2).unique().tolist() == [case["facts"]["selected"]]
    q3 = module.q3(inputs["t32"][:, 0].flatten(2).transpose(1, 2))
    k3 = module.k3(inputs["r32"].flatten(3).transpose(2, 3))
    case.check("scores", module.scores(q3, k3, inputs["t32"].shape[-2:], inputs["r8"].shape[-2:]))


@pytest.mark.parametrize("name", REFINE_CASES)
@torch.no_grad()
def test_refinement_is_official(name):
    case = Case("mrcfa", name)
    module, inputs = refinement_of(case), case.inputs()
    assert {k: list(v.shape) for k, v in module.state_dict().items()} == case["state"]
    case.check("out", refined(module, inputs))
    found = reference.refine(module, **inputs)
    case.check("out", found["mixed.s8"])
    for output in ("refined.s32", "refined.s16", "refined.s8", "mixed.s16"):
        case.check(output, found[output])


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", REFINE_CASES)
def test_refinement_has_the_gradients_of_the_reference(name):
    case = Case("mrcfa", name)
    module = refinement_of(case)
    compare(module, functools.partial(refined, module), lambda x: reference.refine(module, **x)["mixed.s8"], case)


@pytest.mark.parametrize("name", AFFINITY_CASES)
def test_affinities_have_the_gradients_of_the_reference(name):
    case = Case("mrcfa", name)
    module = affinity_of(case)
    compare(module, lambda x: affinities(module, x)[0], lambda x: reference_affinities(module, x)["affinity"], case)


@pytest.mark.parametrize("name", HEAD_CASES)
def test_head_has_the_gradients_of_the_reference(name):
    case = Case("mrcfa", name)
    head = build_filled(build_head, case.config, mode="train")
    clips = (case["batch_size"], case["num_clips"])
    compare(
        head,
        lambda x: head(list(x.values()), *clips),
        lambda x: reference.forward(head, list(x.values()), *clips),
        case,
    )


def compare(module: torch.nn.Module, product, formulas, case: Case) -> None:
    """Outputs and the gradients of all inputs and parameters, of the product and of the reference."""
    found, expected = (outputs_and_gradients(module, call, case.inputs()) for call in (product, formulas))
    assert found.keys() == expected.keys()
    largest = max(value.abs().max() for name, value in expected.items() if name != "output")
    for name, value in expected.items():
        # a gradient that is zero in exact arithmetic is rounding noise of the others
        scale = value.abs().max() if name == "output" else max(value.abs().max(), 1e-2 * largest)
        assert (found[name] - value).abs().max() <= 2e-4 * scale, name


def outputs_and_gradients(module: torch.nn.Module, call, inputs: Inputs) -> Inputs:
    module.zero_grad()
    # maps as the backbone gives them: channels last in memory
    leaves = {name: channels_last(value).requires_grad_() for name, value in inputs.items()}
    output = call(leaves)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * weight).sum().backward()
    gradients = {name: leaf.grad for name, leaf in (*leaves.items(), *module.named_parameters())}
    return {"output": output.detach(), **{name: g.clone() for name, g in gradients.items() if g is not None}}


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


# ---------------------------------------------------------------------- chunks and selection


def test_the_number_of_tokens_in_a_chunk_changes_nothing(monkeypatch):
    case = Case("mrcfa", "affinity_b1")
    module, inputs = affinity_of(case), case.inputs()
    with torch.no_grad():
        whole, _ = affinities(module, inputs)
        monkeypatch.setattr("mmseg.models.cpu.pieces._MAPS", 7)
        parts, _ = affinities(module, inputs)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_planes_keep_their_memory_order_in_the_refinement():
    """By another stride of the first axis convolutions take them for maps of no known order, and rewrite them."""
    planes = [_planes(torch.randn(h * w, 5), (h, w)) for h, w in ((2, 3), (4, 6), (8, 12))]
    assert planes[0].shape == (1, 5, 2, 3) and planes[0].stride() == (30, 1, 15, 5)
    found = AffinityRefinement("b1").eval()(*planes, convolved=True)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found.is_contiguous()


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
        "from tests.models.test_affinity import affinities, affinity_of\n"
        "case = Case('mrcfa', 'affinity_b1')\n"
        "module, inputs = affinity_of(case), case.inputs()\n"
        "with torch.no_grad(): case.check('mask', affinities(module, inputs)[1])\n"
        "q3 = module.q3(inputs['t32'][:, 0].flatten(2).transpose(1, 2)).detach()\n"
        "k3 = module.k3(inputs['r32'].flatten(3).transpose(2, 3)).detach()\n"
        "exact = (k3.double().flatten(1, 2) @ q3.double().transpose(1, 2)).topk(5, dim=2).values.sum(2).float()\n"
        "assert torch.equal(module.scores(q3, k3, (4, 5), (4, 5)).flatten(), exact.flatten())\n"
    )
    finish([sys.executable, "-c", program], ROOT)  # in a process of its own: the setting is of the whole process
