"""Helpers of the course on transfer learning for chest CT slices.

Read the modules from the ground up; each imports only from those before it:
runs, progress, anatomy, disease, phantom, downloads, images, folders, data, models, speed, training,
evaluation, audit, shortcuts, explain, localization, faithfulness, plotting, cam_figures, score_figures, widgets.
`pretrain` makes the bundled weights, `sweep` executes notebooks.
"""
