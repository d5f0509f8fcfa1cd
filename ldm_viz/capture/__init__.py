"""Recording a denoising run of a diffusers pipeline, faithfully: needs torch and diffusers."""

from .estimates import Estimate, estimate
from .recorder import (
    LiveStep,
    NonFiniteWarning,
    Recorder,
    RecordingError,
    RecordingWarning,
    record,
)
from .scaling import add_scaling

__all__ = [
    "Estimate",
    "LiveStep",
    "NonFiniteWarning",
    "Recorder",
    "RecordingError",
    "RecordingWarning",
    "add_scaling",
    "estimate",
    "record",
]
