"""Helpers of the course on transfer learning for chest CT slices.

Read the modules from the ground up: runs, phantom, data, models, training, evaluation, explain, plotting.
"""
