"""Mined hard negatives: the passages of the source's collection that come closest to Q+ and are not judged relevant to it."""

from pipeline.mining.miner import Miner, Mining

__all__ = ["Miner", "Mining"]
