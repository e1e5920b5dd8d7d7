"""Loading weights into a model: what fits is taken, and what does not is told, by the purpose."""

import pytest
import torch
from torch import nn

from mmseg.errors import CheckpointError
from mmseg.models import build_segmentor
from mmseg.weights import load_checkpoint, write_weights_file
from tests.models.test_cffm import tiny_config
from tests.weight_models import equal, small_model


def test_other_model_names_the_first_differences(tmp_path):
    path = tmp_path / "other.pth"
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save({"state_dict": {**model.state_dict(), "2.weight": torch.zeros(9, 4)}}, path)
    with pytest.raises(CheckpointError, match=r"2\.weight is \[9, 4\] in the file and \[2, 4\] in the model"):
        load_checkpoint(model, path)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in small_model(1).state_dict().items()}}, path)
    with pytest.raises(CheckpointError, match=r"missing in the file: 0\.weight.*not in the model: backbone\.0\.weight"):
        load_checkpoint(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_left_over_and_missing_names_are_a_warning_unless_strict(tmp_path, caplog):
    path = tmp_path / "part.pth"
    state = small_model(1).state_dict()
    del state["2.bias"]
    torch.save({"state_dict": {**state, "aux.weight": torch.zeros(1)}}, path)
    model = small_model()
    load_checkpoint(model, path)
    assert torch.equal(model[0].weight, small_model(1)[0].weight)
    assert "not in the file: 2.bias" in caplog.text and "not in the model: aux.weight" in caplog.text
    with pytest.raises(CheckpointError, match=r"missing in the file: 2\.bias; not in the model: aux\.weight"):
        load_checkpoint(model, path, strict=True)


UNUSABLE = {
    "text": "x",
    "nothing": None,
    "a list": [1.0],
    "sparse": torch.zeros(4, 3).to_sparse(),
    "complex": torch.zeros(4, 3, dtype=torch.complex64),
    "meta": torch.zeros(4, 3, device="meta"),
    "whole numbers": torch.zeros(4, 3, dtype=torch.int64),
    "yes and no": torch.zeros(4, 3, dtype=torch.bool),
    "nan": torch.full((4, 3), float("nan")),
    "infinite": torch.full((4, 3), float("-inf")),
    "one number that claims to be many": torch.zeros(1).expand(4, 3),
    "one number that claims to be 10**12": torch.zeros(1).expand(10**6, 10**6),
}


@pytest.mark.parametrize("purpose", ["train", "test", "resume"])
@pytest.mark.parametrize("value", UNUSABLE.values(), ids=UNUSABLE)
def test_entries_that_are_no_weights(tmp_path, value, purpose):
    torch.save({"state_dict": {**small_model(1).state_dict(), "0.weight": value}}, tmp_path / "bad.pth")
    model = small_model()
    with pytest.raises(CheckpointError, match=r"bad\.pth: 0\.weight (is|has|claims)"):
        load_checkpoint(model, tmp_path / "bad.pth", purpose=purpose)
    assert equal(model, small_model())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision(tmp_path, dtype):
    torch.save(small_model(1).to(dtype).state_dict(), tmp_path / "a.pth")
    model = small_model()
    load_checkpoint(model, tmp_path / "a.pth", purpose="test")
    assert torch.equal(model[0].weight, small_model(1)[0].weight.to(dtype).float())


def test_another_number_of_classes_is_told_and_left_out_in_training_alone(tmp_path, caplog):
    path = tmp_path / "k8.pth"
    torch.save({"state_dict": small_model(1, classes=8).state_dict()}, path)
    for purpose in ("test", "resume", None):
        with pytest.raises(CheckpointError, match=r"2\.weight is \[8, 4\] in the file and \[2, 4\] in the model"):
            load_checkpoint(small_model(), path, purpose=purpose)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(small_model(), path, strict=True, purpose="train")
    for purpose in ("train", "finetune"):
        caplog.clear()
        model = small_model()
        load_checkpoint(model, path, purpose=purpose)
        assert torch.equal(model[0].weight, small_model(1, classes=8)[0].weight)
        assert torch.equal(model[2].weight, small_model()[2].weight)
        (warning,) = caplog.records
        assert "2 entries of another shape" in warning.message
        assert "2.weight [8, 4] here [2, 4], 2.bias [8] here [2]" in warning.message


def test_a_test_needs_all_weights_and_a_resumption_all_names(tmp_path):
    path = tmp_path / "part.pth"
    state = small_model(1).state_dict()
    torch.save({k: v for k, v in state.items() if k != "2.bias"}, path)
    for purpose in ("test", "resume"):
        with pytest.raises(CheckpointError, match=r"missing in the file: 2\.bias"):
            load_checkpoint(small_model(), path, purpose=purpose)
    torch.save({**state, "more": torch.zeros(1)}, path)
    load_checkpoint(small_model(), path, purpose="test")
    with pytest.raises(CheckpointError, match="not in the model: more"):
        load_checkpoint(small_model(), path, purpose="resume")
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    load_checkpoint(small_model(), path, purpose="resume")  # old versions of torch have no such counter
    with pytest.raises(ValueError, match="purpose"):
        load_checkpoint(small_model(), path, purpose="trian")


class Renaming(nn.Sequential):
    """Knows files in which its layers have other names."""

    def adapt_weights(self, state: dict, purpose: str) -> dict:
        self.purpose = purpose
        return {name.replace("old.", ""): value for name, value in state.items()}


@pytest.mark.parametrize("purpose", ["train", "finetune", "test", "resume"])
def test_a_model_may_adapt_the_entries_first(tmp_path, purpose):
    torch.save({f"old.{k}": v for k, v in small_model(1).state_dict().items()}, tmp_path / "old.pth")
    model = Renaming(*small_model())
    checkpoint = load_checkpoint(model, tmp_path / "old.pth", purpose=purpose)
    assert equal(model, small_model(1)) and model.purpose == purpose
    assert "0.weight" in checkpoint["state_dict"]


def test_cffm_plus_starts_from_cffm_without_a_warning(tmp_path, caplog):
    caplog.set_level("INFO", "mmseg")
    cffm = build_segmentor(tiny_config())
    torch.save({"state_dict": cffm.state_dict()}, tmp_path / "cffm.pth")
    config = tiny_config()
    config["decode_head"]["type"] = "CFFMPlusHead"
    model = build_segmentor(config)
    new = [name for name in model.state_dict() if name not in cffm.state_dict()]
    load_checkpoint(model, tmp_path / "cffm.pth", purpose="train")
    (message,) = caplog.records
    assert message.levelname == "INFO" and f"{len(new)} entries of the new parts" in message.message
    caplog.clear()
    state = model.state_dict()
    del state["decode_head.linear_pred3.weight"]  # half a part is no new part
    torch.save({"state_dict": state}, tmp_path / "half.pth")
    load_checkpoint(model, tmp_path / "half.pth", purpose="train")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_way_out_is_not_the_one_that_was_tried(tmp_path):
    """A backbone alone, given to --load-from and to a test."""
    path, model = tmp_path / "backbone.pth", small_model()
    write_weights_file(path, {f"other.{name}": value for name, value in model.state_dict().items()})
    for purpose, told in (("train", "set model.pretrained"), ("test", "--load-from")):
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(model, path, purpose=purpose)
        assert told in error.value.action and ("--load-from" in error.value.action) == (purpose == "test")
