"""Names of MiT weights at other sources, as lists of what those sources really call them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmseg.models import build_backbone
from mmseg.models.backbones.mit_weights import own_names

# Keys of `transformers.SegformerModel(SegformerConfig())`, a MiT-B0, in version 5.24: per stage, per block, per block
# with a reduction (all but the last stage); each with .weight and .bias.
TRANSFORMERS_5 = (
    ("stages.{s}.patch_embeddings.proj", "stages.{s}.patch_embeddings.layer_norm", "stages.{s}.layer_norm"),
    tuple(
        "stages.{s}.blocks.{b}." + name
        for name in (
            "layernorm_before", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
            "layernorm_after", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2",
        )
    ),
    (
        "stages.{s}.blocks.{b}.attention.sequence_reduction.sequence_reduction",
        "stages.{s}.blocks.{b}.attention.sequence_reduction.layer_norm",
    ),
)  # fmt: skip
# Keys of the files that it saves, and of nvidia/mit-b0.
HUGGING_FACE = (
    ("encoder.patch_embeddings.{s}.proj", "encoder.patch_embeddings.{s}.layer_norm", "encoder.layer_norm.{s}"),
    tuple(
        "encoder.block.{s}.{b}." + name
        for name in (
            "layer_norm_1", "attention.self.query", "attention.self.key", "attention.self.value",
            "attention.output.dense", "layer_norm_2", "mlp.dense1", "mlp.dwconv.dwconv", "mlp.dense2",
        )
    ),
    ("encoder.block.{s}.{b}.attention.self.sr", "encoder.block.{s}.{b}.attention.self.layer_norm"),
)  # fmt: skip
# The same parts in the same order here; query, key and value in places of their own.
OURS = (
    ("patch_embed{s}.proj", "patch_embed{s}.norm", "norm{s}"),
    tuple(
        "block{s}.{b}." + name
        for name in (
            "norm1", "attn.q", "attn.key", "attn.value", "attn.proj", "norm2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2"
        )
    ),
    ("block{s}.{b}.attn.sr", "block{s}.{b}.attn.norm"),
)  # fmt: skip


def backbone(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_backbone(dict(type="mit_b0"))


def expanded(patterns: tuple, first: int) -> list[str]:
    """All names of a MiT-B0 (four stages of two blocks), stages counted from `first`."""
    stage, block, reduced = patterns
    names = [p.format(s=s + first) for s in range(4) for p in stage]
    names += [p.format(s=s + first, b=b) for s in range(4) for b in range(2) for p in block]
    names += [p.format(s=s + first, b=b) for s in range(3) for b in range(2) for p in reduced]
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def renamed(state: dict[str, Tensor], patterns: tuple, prefix: str = "") -> dict[str, Tensor]:
    """A state dict of ours under the names of a source that keeps key and value apart."""
    apart = {}
    for name, value in state.items():
        if ".attn.kv." in name:
            key, val = value.chunk(2)
            apart |= {name.replace(".kv.", ".key."): key, name.replace(".kv.", ".value."): val}
        else:
            apart[name] = value
    theirs = dict(zip(expanded(OURS, 1), expanded(patterns, 0), strict=True))
    assert sorted(apart) == sorted(theirs)
    return {prefix + theirs[name]: value for name, value in apart.items()}


def openmmlab(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under the names of mmsegmentation's ``mit_b0_20220624-*.pth``."""
    parts = {"mlp.fc1": "ffn.layers.0", "mlp.dwconv.dwconv": "ffn.layers.1", "mlp.fc2": "ffn.layers.4"}
    parts |= {"attn.q": "attn.attn.in_proj", "attn.proj": "attn.attn.out_proj"}
    theirs = {}
    for name, value in state.items():
        module, kind = name.rsplit(".", 1)
        first, *rest = module.split(".")
        stage = int(first[-1]) - 1
        if first.startswith("patch_embed"):
            theirs[f"layers.{stage}.0.{'projection' if rest == ['proj'] else 'norm'}.{kind}"] = value
        elif first.startswith("norm"):
            theirs[f"layers.{stage}.2.{kind}"] = value
        else:
            part = ".".join(rest[1:])
            place = f"layers.{stage}.1.{rest[0]}.{parts.get(part, part)}"
            if part == "attn.q":
                theirs[f"{place}_{kind}"] = torch.cat([value, state[name.replace(".q.", ".kv.")]])
            elif part != "attn.kv":
                conv = part.startswith("mlp.fc") and kind == "weight"
                theirs[f"{place}.{kind}"] = value[..., None, None] if conv else value
    return theirs


def assert_equal_states(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert sorted(a) == sorted(b)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize(
    ("patterns", "prefix"),
    [(HUGGING_FACE, ""), (HUGGING_FACE, "segformer."), (TRANSFORMERS_5, ""), (TRANSFORMERS_5, "segformer.")],
)
def test_hugging_face_names(patterns, prefix):
    state = backbone().state_dict()
    theirs = renamed(state, patterns, prefix)
    assert len(theirs) == 192  # as many as the real class has
    theirs["classifier.weight"] = torch.zeros(3)
    theirs["decode_head.linear_c.0.proj.weight"] = torch.zeros(3)
    theirs["decode_head.linear_projections.1.proj.weight"] = torch.zeros(3)
    assert_equal_states(own_names(theirs), state)


def test_openmmlab_names():
    state = backbone().state_dict()
    theirs = openmmlab(state)
    assert "layers.0.1.0.attn.attn.in_proj_weight" in theirs and "layers.3.1.1.ffn.layers.4.bias" in theirs
    assert theirs["layers.0.1.0.ffn.layers.0.weight"].shape == (128, 32, 1, 1)
    assert_equal_states(own_names(theirs), state)


def test_our_own_names_stay():
    state = {**backbone().state_dict(), "something.else": torch.zeros(1)}
    assert_equal_states(own_names(state), state)


def test_a_key_without_its_value_is_kept_apart():
    theirs = renamed(backbone().state_dict(), HUGGING_FACE)
    del theirs["encoder.block.0.0.attention.self.value.weight"]
    ours = own_names(theirs)
    assert "block1.0.attn.kv.weight" not in ours and "block1.0.attn.key.weight" in ours
