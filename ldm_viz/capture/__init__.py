"""Recording a denoising run of a diffusers pipeline, faithfully: needs torch and diffusers."""

from .recorder import LiveStep, Recorder, RecordingError, RecordingWarning, record

__all__ = ["LiveStep", "Recorder", "RecordingError", "RecordingWarning", "record"]
