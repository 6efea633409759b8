"""What formats share whose variants are whole checkpoints.

``Storage`` and ``contents`` stand here for formats of other packages, which describe what they made by them.
"""

from __future__ import annotations

from quantpress.source.safetensors import Storage, contents

__all__ = ["Storage", "contents"]
