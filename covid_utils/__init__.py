"""Helpers of the course on transfer learning for chest CT slices.

What is taught, read top down in the order of the notebooks: data, models, training, evaluation, explain, plotting.
Folders for the rest: core (settings, files, device), io (slices and weights from disk or net), runs (checkpoints,
cached features, records), labs (experiments of single notebooks). `tests/test_house.py` holds the layers.
"""
