"""The earlier name of :mod:`quantpress.card.templates`. Packages with a format import it to check their template."""

from __future__ import annotations

from quantpress.card.templates import (
    TEMPLATES,
    fingerprint,
    markdown_environment,
    template_path,
    templates_fingerprint,
)

__all__ = ["TEMPLATES", "fingerprint", "markdown_environment", "template_path", "templates_fingerprint"]
