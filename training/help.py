"""How `--help` reads: a line a command, and of each option what it comes to if it is not given."""

import argparse
import re
from collections.abc import Mapping

from pydantic import BaseModel

from training.recipes.defaults import Defaults

DEFAULT = re.compile(r" \(default(?: factory)?: (.*)\)$", re.DOTALL)
# What pydantic-settings shows of an option that is nothing by default, and of one whose default is worked out.
UNTOLD = ("null", "default_root", "default_signing_key", "default_allowed")


def help_formatter(
    recipes: Mapping[str, tuple[type[BaseModel], Defaults]],
) -> type[argparse.RawDescriptionHelpFormatter]:
    """Return a formatter of argparse's that knows the recipes' own defaults.

    Args:
        recipes: Name of a command -> its options and what they are by default, by architecture.
    """

    class Help(argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str:
            text = action.help or ""
            if not action.option_strings:
                return text.partition("\n")[0]
            found = DEFAULT.search(text)
            if found is None:
                return text
            said = text[: found.start()]
            *before, command = self._prog.split()
            field = action.option_strings[0].lstrip("-").replace("-", "_")
            if field == "learning_rate" and before[-1] == "compare":
                return said  # Each of the optimizers that are compared has its own.
            default = _default(*recipes[command], field) if command in recipes else ""
            default = default or ("" if found[1] in UNTOLD else found[1])
            return f"{said} (default: {default})" if default else said

    return Help


def _default(options: type[BaseModel], defaults: Defaults, field: str) -> str:
    """Return the recipe's default: the usual architecture's, and which have another; nothing if it has none."""
    own = options.model_fields[field].default if field in options.model_fields else None
    usual = options.model_fields["arch"].default
    first = defaults[usual].get(field, own)
    if first is None or not any(field in values for values in defaults.values()):
        return ""
    others: dict[object, list[str]] = {}
    for arch, values in defaults.items():
        if (value := values.get(field, own)) != first:
            others.setdefault(value, []).append(arch)
    return "; ".join([str(first), *(f"{', '.join(archs)} {value}" for value, archs in others.items())])
