"""The reference of settings, written from the settings themselves."""

from pydantic_core import PydanticUndefined

from app.settings import Settings

_HEAD = """# Settings

Every knob of a worker, read from the environment. This page is written by `freshet settings`; a test holds it.

| variable | default | meaning |
| --- | --- | --- |
"""


def settings_markdown() -> str:
    """Return the page ``docs/reference/settings.md``."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is PydanticUndefined else _text(field.default)
        lines.append(f"| `FRESHET_{name.upper()}` | {default} | {field.description} |\n")
    return _HEAD + "".join(lines)


def _text(default: object) -> str:
    shown = default.get_secret_value() if hasattr(default, "get_secret_value") else default
    return "" if shown is None else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
