"""The embedded model: a small latent diffusion model trained from nothing on drawings of our own.

`load_tiny` loads it. The folder also holds everything it was made from: `scenes`, `drawing` and
`captions` make the training data, `training` trains, `judge` measures. MODEL_CARD.md has the
figures and the limits.
"""

from ldm_viz.tiny.loading import JointSpace, load_joint_space, load_tiny

__all__ = ["JointSpace", "load_joint_space", "load_tiny"]
