"""What people read of a configuration: in what it differs from the default, and all of it."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from dagster import Config, MarkdownMetadataValue

from recsys_pipeline.reporting.metadata import markdown_table


def told_configuration(config: Config) -> str:
    """What is set to something else than the default.

    Where the configuration of the run misspells the name of an asset, Dagster runs the asset as if nothing
    had been set: this line shows it.
    """
    usual = _defaults(type(config))
    set_ = {name: value for name, value in _plain(config).items() if value != usual.get(name)}
    if not set_:
        return "configuration: the default"
    told = "; ".join(f"{name} {_told(value)}" for name, value in set_.items())
    return f"configuration: {told}; else the default"


def settings_table(*configs: Config, **more: Any) -> MarkdownMetadataValue:
    """All settings of these configurations, those first that are not the default."""
    rows: list[tuple[str, str, str]] = [(_words(name), _told(value), "") for name, value in more.items()]
    for config in configs:
        usual = _defaults(type(config))
        of_config = [
            (name, _told(value), "" if value == usual.get(name) else _told(usual.get(name)))
            for name, value in _plain(config).items()
        ]
        rows += sorted(of_config, key=lambda row: not row[2])
    return markdown_table(["setting", "value", "instead of the default"], rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(config: Config) -> dict[str, Any]:
    return {name: _value(getattr(config, name)) for name in type(config).model_fields}


def _defaults(kind: type[Config]) -> dict[str, Any]:
    return {
        name: _value(field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }


def _value(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: _value(each) for name, each in value.items()}
    return [_value(each) for each in value] if isinstance(value, list | tuple) else value


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(each)}" for name, each in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(_told, value)) or "nothing"
    if isinstance(value, float):
        return f"{value:g}"
    return "nothing" if value in ("", None) else str(value)
