"""YAML of ours, parsed by libyaml where PyYAML was built with it: several times as fast."""

from __future__ import annotations

from typing import Any, Final

import yaml

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """Plain values only. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_LOADER)  # noqa: S506, both loaders are safe ones
