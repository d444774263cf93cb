"""What a person did that can't work, in one sentence; the command lines turn it into exit status 2."""

from __future__ import annotations


class UsageError(Exception):
    """Unusable arguments or input. The message is one clear sentence: what is wrong and what to do."""
