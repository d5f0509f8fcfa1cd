"""Widgets that show a recorded run in the browser, with no kernel needed once they are drawn."""

from ldm_viz.widgets.explorer import Explorer, explore

__all__ = ["Explorer", "explore"]
