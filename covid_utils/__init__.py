"""Helpers of the course on transfer learning for chest CT slices.

What is taught, read top down in the order of the notebooks: data, models, training, evaluation, explain, plotting.
Rooms for the rest: phantom (drawing slices), sources (slices and weights from disk or net), runs (settings, records,
checkpoints, executing notebooks), labs (experiments of single notebooks). `tests/test_house.py` holds the order in
which modules may import one another.
"""
