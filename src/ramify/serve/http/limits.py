"""How much the server takes on. Light, so that a command's help can say it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ramify.base.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What the server takes on.

    Attributes:
        parallel: requests computed at once, over all models.
        queue: requests that wait beside them; one more gets 429.
        body: largest body in bytes.
        timeout: longest time in seconds from a request's first byte to the last one of its answer, waiting included.

    Raises:
        ConfigError: one of them leaves nothing to do.
    """

    parallel: int = 16
    queue: int = 64
    body: int = 4 * MIB
    timeout: float = 600.0

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("queue", 0), ("body", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: at least {least} is needed")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"timeout = {self.timeout}: seconds above 0 are needed")
