"""What formats share if each of their variants is a whole checkpoint.

Formats of other packages import ``Storage`` and ``contents`` from here, to describe the files that they made.
"""

from __future__ import annotations

from quantpress.source.safetensors import Storage, contents

__all__ = ["Storage", "contents"]
