"""Write docs/settings.md from the settings themselves: `python -m app.settings_table > docs/settings.md`."""

from app.settings import Settings, environment_name

HEAD = """# Settings

<!-- Written by `python -m app.settings_table > docs/settings.md`; a test fails when it is behind. -->

Each setting is an environment variable and an option of `python -m app`. The command line wins over the
environment, which wins over the default. A wrong value stops the start with a line that names it, and so does a
`LANTERN_` name that is no setting (but for those of the training, of the compose file and of Kubernetes).

| variable | option | default | meaning |
|---|---|---|---|
"""


def settings_table() -> str:
    """The page, with a row for each setting."""
    rows = [
        f"| `{environment_name(field)}` | `--{field.replace('_', '-')}` "
        f"| {f'`{info.default}`' if info.default is not None else ''} | {info.description} |"
        for field, info in Settings.model_fields.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(settings_table(), end="")
