"""The embedded offline model: rules, not a language model."""

from pipeline.chat.offline.model import VERSION, OfflineModel

__all__ = ["VERSION", "OfflineModel"]
