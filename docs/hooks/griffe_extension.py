"""What griffe calls for every docstring that it reads for the pages of the API."""

from typing import Any

import griffe

from docs.hooks.doctests import fenced


class Examples(griffe.Extension):
    """Shows the examples of docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
