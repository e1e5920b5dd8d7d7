"""HFAN: alignment and adaptation of a frame's features and those of its optical flow, per stage of the backbone."""
