"""A recorded run as a file to show: GIF, WebP, MP4, a contact sheet or a page."""

from .exporting import SUFFIXES, animate, export
from .writers import ExportError

__all__ = ["SUFFIXES", "ExportError", "animate", "export"]
