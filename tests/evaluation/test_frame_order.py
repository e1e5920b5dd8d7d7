"""Frames of several videos fed in turn, and what is known of them after a merge."""

import pytest

from mmseg.errors import DataError
from mmseg.evaluation.frame_order import FrameOrder


def fed(order: FrameOrder, *frames: tuple[str, int]) -> FrameOrder:
    for video, frame in frames:
        order.check(video, frame)
        order.advance(video, f"{video}{frame}", frame)
    return order


def test_the_video_that_rested_longest_is_dropped():
    order = fed(FrameOrder(limit=2), ("a", 0), ("b", 0), ("a", 1), ("c", 0))
    assert (order.state("a"), order.state("b"), order.state("c")) == ("a1", None, "c0")
    order.check("a", 2)
    with pytest.raises(DataError, match="frame 1 of video 'b' arrives after the video was taken as finished"):
        order.check("b", 1)


def test_merged_videos_take_no_frame_again():
    order = fed(FrameOrder(), ("a", 0))
    order.merge(fed(FrameOrder(), ("b", 0), ("b", 1)))
    assert order.num_frames == {"a": 1, "b": 2}
    for video in "ab":
        with pytest.raises(DataError, match=f"frame 0 of video '{video}' arrives a second time"):
            order.check(video, 0)
    with pytest.raises(DataError, match="finished"):
        order.check("b", 2)
