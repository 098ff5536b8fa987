"""The page of settings agrees with the dataclasses."""

from dataclasses import dataclass, fields

from tools.settings import SETTINGS, field_descriptions, render
from trainer.config.run import RunConfig


@dataclass
class Base:
    """First line."""

    inherited: int = 1
    """Of the base."""


@dataclass
class Config(Base):
    """Fields with docstrings under them."""

    one: int = 1
    """First line
    and second | line."""

    two: int = 2
    # no docstring

    def method(self) -> None:
        """No field."""


def test_the_page_is_up_to_date():
    assert SETTINGS.read_text() == render(), "run `python -m tools`"


def test_the_docstring_under_a_field_describes_it():
    assert field_descriptions(Config) == {"inherited": "Of the base.", "one": r"First line and second \| line."}


def test_the_column_of_event_kinds_is_a_setting_and_the_kind_of_a_model_is_a_heading():
    page = SETTINGS.read_text()
    assert "| `columns.kind` | `event` |" in page
    assert "| `model.kind` |" not in page
    assert "with `model.kind=" in page


def test_every_setting_has_a_description():
    assert [line for line in render().splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
    assert set(field_descriptions(RunConfig)) <= {field.name for field in fields(RunConfig)}


def test_each_setting_has_the_name_that_sets_it():
    page = render()
    for name in (
        "`model.return_bonus` | `3.0`",
        "`input.batch_size` | `1024`",
        "`als.l2` | `0.01`",
        "`items.min_count` | `0`",
        "`visitors.min_count` | `1`",
        "`expectations.rows.warn` | `0.25`",
        "`epochs` | `1`",
        "`CARTWHEEL_STORAGE_PATIENCE_SECONDS` | `180.0`",
        "`CARTWHEEL_CACHE_BYTES` | `17179869184`",
    ):
        assert f"| {name} |" in page
