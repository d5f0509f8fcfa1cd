"""Trains the embedded model from nothing: ``python -m ldm_viz.tiny.training --work FOLDER``."""
