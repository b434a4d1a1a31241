"""Tunesmith: your own examples to a better small language model, with numbers that say whether it is better.

import tunesmith
model = tunesmith.finetune("default", "faq.jsonl")
model("How do I reset my password?")
model.evaluate()
model.save("out/")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "Project", "TunesmithError", "__version__", "finetune"]

if TYPE_CHECKING:
    from tunesmith.api import Model, finetune
    from tunesmith.core.errors import TunesmithError
    from tunesmith.core.project import Project

_PLACES = {"TunesmithError": "core.errors", "Project": "core.project", "Model": "api", "finetune": "api"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package must stay instant."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"tunesmith.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
