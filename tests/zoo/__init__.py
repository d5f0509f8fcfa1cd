"""Small random pipelines of many of diffusers' families, made from components: no download.

Prompts go in as embeddings, drawn at random, so that no tokenizer and no text encoder is needed;
only where a prior asks for words they are the smallest there can be. Weights are random but always
the same ones; a step takes some milliseconds.
"""

from .chains import CHAINS
from .images import UNETS
from .specimen import Specimen, autoencoder, flow_autoencoder
from .transformers import TRANSFORMERS
from .videos import VIDEOS

__all__ = ["ZOO", "Specimen", "autoencoder", "flow_autoencoder"]

ZOO: tuple[Specimen, ...] = UNETS + TRANSFORMERS + VIDEOS + CHAINS
