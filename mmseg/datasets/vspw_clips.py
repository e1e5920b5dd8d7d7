"""VSPW as THE-Mask reads it: clips that show something in training, clips of frames in testing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmseg.datasets.vspw import VSPWDataset
from mmseg.errors import DataError
from mmseg.registry import DATASETS
from mmseg.values import NonNegativeInt, PositiveInt
from mmseg.visualization import palette_table
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.frame_truth import FrameScoreWriter, TruthPngWriter


@DATASETS.register_module()
class VSPWClipDataset(VSPWDataset):
    """:class:`VSPWDataset` with four differences (THE-Mask specification, sections 7, 8 and 11).

    - Where only some frames have masks, all frames of a training clip are among these, since all are learned.
    - The target is in its clip once: a `dilation` of [0] is one frame, [-3] two.
    - A training clip without any labelled pixel is replaced by one of a random video.
    - ``--format-only`` writes ``result_submissionval``, and the truth and the mIoU of every frame beside it.

    Args:
        test_size: frames that the model predicts together in testing; which ones is the stream's to say.
        redraws: how often a clip without a labelled pixel is replaced before it is an error; 0 keeps it.
        kwargs: see :class:`VSPWDataset`.
    """

    learns_all_frames = True
    submission = "result_submissionval"  # folder of the PNGs of --format-only

    def __init__(self, *args: Any, test_size: PositiveInt = 1, redraws: NonNegativeInt = 10, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.test_size, self.redraws = test_size, redraws
        self.dilation = tuple(offset for offset in self.dilation if offset)

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """See :meth:`VideoDataset.clip`.

        Raises:
            DataError: also after too many clips without a labelled pixel.
        """
        for _ in range(1 + self.redraws):
            sample = super().clip(index, rng, progress)
            labels = sample.get("gt_semantic_seg")
            if not self.redraws or labels is None or bool((labels != self.ignore_index).any()):
                return sample
            index = int(rng.integers(len(self.videos)))
        raise DataError(
            f"{1 + self.redraws} training clips in a row without a labelled pixel, the last of video "
            f"{sample['img_metas']['video']!r}",
            "videos that show classes",
            "remove the videos without labels from the split file, or set redraws=0 in the data set's config, which "
            "trains on such clips, too",
        )

    def writers(self, options: ResultOptions) -> list[ResultWriter]:
        """See :meth:`VideoDataset.writers`."""
        writers = super().writers(options)
        if options.format_only:
            table = palette_table(options.palette or self.PALETTE, self.num_classes)
            writers.append(TruthPngWriter(options.folder / "gts", table))
            writers.append(FrameScoreWriter(options.folder / "miou.txt", self.ignore_index))
        return writers
