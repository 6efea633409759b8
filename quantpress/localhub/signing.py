"""Makes and checks signed addresses for uploads.

huggingface_hub sends no token with the bytes of a large file. On the public Hub, the client sends these bytes to a
storage service. The address at the storage service carries the permission to upload. The addresses that this module
makes carry the permission too.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from quantpress.localhub.errors import HubError

_VALID_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Signer:
    key: bytes

    def _signature(self, path: str, fields: Mapping[str, str]) -> str:
        text = path + "?" + urlencode(sorted(fields.items()))
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def sign(self, path: str, fields: Mapping[str, str | int]) -> str:
        """Returns ``path`` with a query of the fields, an expiry time and a signature.

        The signature covers the path, the fields and the expiry time.
        """
        texts = {key: str(value) for key, value in fields.items()}
        texts["expires"] = str(int(time.time()) + _VALID_SECONDS)
        return f"{path}?{urlencode({**texts, 'signature': self._signature(path, texts)})}"

    def check(self, path: str, query: Mapping[str, str]) -> None:
        """Raises HubError (403) if sign() did not make this address, or if the address has expired."""
        fields = {key: value for key, value in query.items() if key != "signature"}
        if not hmac.compare_digest(self._signature(path, fields).encode(), query.get("signature", "").encode()):
            raise HubError(403, "This Hub did not make this upload address")
        if int(fields["expires"]) < time.time():
            raise HubError(403, "This upload address has expired: ask for the upload again")
