"""Result files: what a test run leaves on disk, and their readers.

``label_pickle`` (``res.pkl`` and the JSON beside it), ``label_png`` (folders of PNGs), ``pictures`` (overlay videos,
contact sheet, window). Each format stands in one file, writer and reader together.
"""
