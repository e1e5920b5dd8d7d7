"""docs/own_data.md from its first line to its last, with two iterations, as a user reads it."""

import re
import shlex
from pathlib import Path

import pytest

from tests.tools.processes import ROOT

PAGE = (ROOT / "docs/own_data.md").read_text()
BLOCKS = re.findall(r"```(python|bash|text)\n(.*?)```", PAGE, re.DOTALL)


def run_line(line: str, call) -> str:
    """A command of the page: a tool, inside of this process, or ``echo TEXT > FILE``."""
    words = shlex.split(line)
    if words[0] == "echo":
        text, arrow, path = words[1:]
        assert arrow == ">"
        Path(path).write_text(text + "\n")
        return ""
    assert words[0] == "python" and words[1].startswith("tools/"), line
    return call(words[1].removeprefix("tools/"), *words[2:])


def pattern(line: str) -> str:
    """A line of the page as a regular expression: any numbers, any blanks between words."""
    words = [re.sub(r"\d+", r"\\d+", re.escape(word)) for word in line.split()]
    return r"\s+".join(re.sub(r"\\d\+(\\\.\\d\+)", r"(\\d+\1|nan)", word) for word in words)


@pytest.mark.slow
def test_the_page_goes_from_nothing_to_labels(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    Path("local_configs").symlink_to(ROOT / "local_configs")
    output = ""
    for kind, text in BLOCKS:
        if kind == "python" and text.startswith("# my_config.py"):
            smaller = "num_classes=3, samples_per_gpu=1, workers_per_gpu=0,"
            Path("my_config.py").write_text(text.replace("=60", "=2").replace("num_classes=3,", smaller))
        elif kind == "python":
            exec(text, {})
        elif kind == "bash":
            output = "".join(run_line(line, call) for line in text.replace("\\\n", " ").splitlines())
        else:
            for line in text.splitlines():
                assert re.search(pattern(line.replace("iter_60", "iter_2")), output), line + "\n\n" + output
    assert len(list(Path("labels/result_submission/garden").glob("*.png"))) == 20
    assert Path("pictures/contact_sheet.png").is_file() and Path("seen/garden/garden_overlay.mp4").is_file()
    # all this from the converted set: the same labels, of another size
    from mmseg.datasets import VSPWDataset

    own = dict(frames_dir="frames", masks_dir="masks", reduce_zero_label=False, ignored_values=[11])
    own = VSPWDataset("my_videos", "val", test_mode=True, unlabelled="keep", num_classes=3, **own)
    converted = VSPWDataset("data/mine", "val", test_mode=True, unlabelled="keep")
    assert converted.CLASSES == ("floor", "box", "ball") and converted.load_frame(0, 3).shape == (54, 96, 3)
    ours, theirs = own.load_label(0, 10), converted.load_label(0, 10)
    assert (ours[::4, ::4] == theirs[::3, ::3]).mean() > 0.98


@pytest.mark.parametrize("argument", re.findall(r"`(\w+)=", PAGE.partition("look different")[2].partition("## Or")[0]))
def test_arguments_of_the_table_exist(argument):
    import inspect

    from mmseg.datasets import VSPWDataset

    assert argument in inspect.signature(VSPWDataset).parameters
