"""One recorded denoising run, as plain arrays and plain metadata, and its file.

A :class:`Trajectory` is what the recorder gives and what everything else draws. It needs neither
torch nor a model, so a saved one opens on a laptop, on Binder, or in a test.
"""

from .container import TrajectoryFileError
from .frames import FrameSeries
from .model import Step, Trajectory

__all__ = ["FrameSeries", "Step", "Trajectory", "TrajectoryFileError"]
