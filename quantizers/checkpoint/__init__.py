"""What formats share if their variants are whole checkpoints.

Formats of other packages import ``Storage`` and ``contents`` from here. They use them to describe what they made.
"""

from __future__ import annotations

from quantpress.source.safetensors import Storage, contents

__all__ = ["Storage", "contents"]
