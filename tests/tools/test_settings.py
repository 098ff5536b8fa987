"""The page of settings says what the dataclasses say."""

from dataclasses import fields

from tools.settings import SETTINGS, described, render
from trainer.config.run import AdagradConfig, RunConfig, TowersConfig


def test_the_page_of_settings_is_that_of_the_dataclasses():
    assert SETTINGS.read_text() == render(), "run `python -m tools.settings`"


def test_what_is_told_over_several_lines_is_told_whole():
    assert described(AdagradConfig)["initial_accumulator"].endswith("squared 1e-7")
    assert set(described(RunConfig)) <= {field.name for field in fields(RunConfig)}


def test_each_setting_stands_under_the_name_by_which_it_is_set():
    page = render()
    for name in (
        "`model.return_bonus` | `3.0`",
        "`input.batch_size` | `1024`",
        "`als.l2` | `0.01`",
        "`items.min_count` | `0`",
        "`epochs` | `1`",
        "`CARTWHEEL_STORAGE_PATIENCE_SECONDS` | `180.0`",
        "`CARTWHEEL_CACHE_BYTES` | `17179869184`",
    ):
        assert f"| {name} |" in page
    assert described(TowersConfig)["return_bonus"].startswith("added to the score")
