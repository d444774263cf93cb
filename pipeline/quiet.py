"""Importing this keeps Beam's notes about its own workings off the terminal; its errors stay.

It must be imported before Beam, which warns of cloud clients that nothing here uses while it is imported.
"""

from __future__ import annotations

import logging

logging.getLogger().setLevel(logging.ERROR)
logging.getLogger("apache_beam").setLevel(logging.ERROR)
