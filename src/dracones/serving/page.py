"""The page: one file, which asks nothing of any other host."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi.responses import HTMLResponse


@cache
def _text() -> str:
    return (files("dracones.serving") / "page.html").read_text(encoding="utf-8")


@cache
def _policy() -> str:
    """What the page may do: its own script and style, by their hashes, and questions to its own service."""
    scripts = _hashes(r"<script>(.*?)</script>")
    styles = _hashes(r"<style>(.*?)</style>")
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(pattern: str) -> str:
    found = re.findall(pattern, _text(), re.S)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)


def page() -> HTMLResponse:
    """The page as an answer."""
    headers = {
        "content-security-policy": _policy(),
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "permissions-policy": "camera=(self)",
    }
    return HTMLResponse(_text(), headers=headers)
