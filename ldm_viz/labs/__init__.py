"""What needs a pipeline and a picture at once: runs shown while they happen."""

from ldm_viz.labs.live import LiveRun, watch

__all__ = ["LiveRun", "watch"]
