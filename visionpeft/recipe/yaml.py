"""Safe YAML for recipes: YAML 1.2 numbers and booleans, and no key twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

from visionpeft.errors import OptionError


class _Loader(yaml.SafeLoader):
    """PyYAML reads ``3e-3`` as text and ``no`` as false (YAML 1.1); people mean a number and a word."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, (dict, list)) or key in seen:
            problem = "not a name" if isinstance(key, (dict, list)) else "given twice"
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is {problem}", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, origin: str) -> Any:
    """Plain data from YAML text.

    Raises:
        OptionError: the text is not YAML; the message names ``origin``, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader, with fewer conversions
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise OptionError(f"{origin}{place}: {getattr(error, 'problem', None) or error}") from error


def dump(data: Any) -> str:
    """YAML text that :func:`parse` reads back to equal data, keys in the given order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
