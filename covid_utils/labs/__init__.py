"""Experiments of single notebooks and the figures only they need; nothing outside imports from here, so play freely."""
