import pytest

from trainer.config.presets import PRESETS
from trainer.config.search import Choices, Range, parse_search


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("model.dim=64,128", Choices("model.dim", ("64", "128"))),
        ("model.dim=64..256", Range("model.dim", 64, 256, is_log=False, is_whole=True)),
        ("optimizer.learning_rate=.05...5", Range("optimizer.learning_rate", 0.05, 0.5, is_log=False, is_whole=False)),
        ("optimizer.learning_rate=1e-3..1:log", Range("optimizer.learning_rate", 0.001, 1.0, True, False)),
        ("loss.half_life_days=none,30", Choices("loss.half_life_days", ("none", "30"))),
        ("loss.half_life_days=7..30", Range("loss.half_life_days", 7.0, 30.0, is_log=False, is_whole=False)),
        ("loss.event_weights=1,1,1|1,2,4", Choices("loss.event_weights", ("1,1,1", "1,2,4"))),
        ("model.similarity=cosine", Choices("model.similarity", ("cosine",))),
    ],
)
def test_choices_and_ranges_are_read(text: str, dimension: Choices | Range) -> None:
    assert parse_search([text], PRESETS["mf"]) == [dimension]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to search; give settings with --search"),
        (["model.dim"], r"must have the form KEY=a,b,c or KEY=low..high or KEY=low..high:log, got `model.dim`"),
        (["model.dims=1,2"], r"unknown setting `model.dims`; did you mean `model.dim`\?"),
        (["model.dim=64,many"], "model.dim must be a whole number, got many"),
        (["model.dim=0..8"], "model.dim must be at least 1, got 0"),
        (["model.dim=1.5..8"], "the range of model.dim must have two whole numbers, the lower one first, got 1.5..8"),
        (["model.dim=8..4"], "the range of model.dim must have two whole numbers, the lower one first, got 8..4"),
        (["optimizer.learning_rate=0..1:log"], "the lower one first, both above 0, got 0..1:log"),
        (
            ["model.similarity=cosine..dot"],
            "model.similarity is not a number, so it cannot have a range; list its values",
        ),
        (["model.dim=8,16", "model.dim=32,64"], "--search has model.dim twice; give each setting once"),
    ],
)
def test_wrong_searches_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_search(texts, PRESETS["mf"])
