"""Lines that show how far many videos are."""

import io

from mmseg.progress import VideoProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_on_a_terminal():
    stream = Terminal()
    line = VideoProgress(3, before=1, stream=stream)
    line.show(0, 5)
    line.show(0, 5)  # nothing new
    line.show(1, 9)
    line.close()
    parts = stream.getvalue().split("\r\x1b[K")
    assert len(parts) == 3 and parts[1].startswith("1/3 videos, 5 frames, ") and "left" not in parts[1]
    assert parts[2].startswith("2/3 videos, 9 frames, ") and parts[2].endswith("left\n")


def test_lines_in_a_file_come_now_and_then_and_at_the_end():
    stream = io.StringIO()
    line = VideoProgress(2, stream=stream)
    for frames in range(5):
        line.show(1, frames)
    line.show(2, 6)
    line.close()
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().startswith("2/2 videos, 6 frames, ")
    silent = VideoProgress(2, enabled=False, stream=io.StringIO())
    silent.show(2, 6)
    assert silent.stream.getvalue() == ""
