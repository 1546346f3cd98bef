"""The charts' runtime: Vega, Vega-Lite and Vega-Embed as one script, taken from the package vl-convert-python."""

from __future__ import annotations

from functools import cache

from modelkit.errors import ResourceError

# Drawing is all that a page needs; what else the bundle offers stays inside.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@cache
def script() -> str:
    """Return the script, about 900 kB; the first call takes seconds, since the package bundles it anew.

    Raises:
        ResourceError: It cannot be had, or would not stay within its element.
    """
    import vl_convert

    text = vl_convert.javascript_bundle(_SNIPPET)
    if "</script" in text.lower() or "<!--" in text:
        raise ResourceError(
            "the charts' runtime cannot be put into a page", "install the versions of constraints.txt"
        )
    return text
