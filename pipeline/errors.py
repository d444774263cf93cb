"""What ends a command with one sentence instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """Arguments or input can't be used: exit status 2. `str(error)` is one sentence that says what to do."""
