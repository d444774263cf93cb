"""What the commands' argument parsers share."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """One clear line on stderr instead of the whole usage, and status 2."""

    def error(self, message: str) -> NoReturn:
        """Print it and end."""
        print(f"error: {message}. See {self.prog} --help.", file=sys.stderr)
        sys.exit(2)
