import dataclasses
from typing import Literal

import pytest

from common.settings import apply_settings, differences, from_json, to_json
from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.models import MatrixFactorizationConfig, NeuralConfig
from trainer.config.optimizers import AdamConfig
from trainer.config.presets import PRESETS
from trainer.config.run import InputConfig, RunConfig

CONFIG = RunConfig(model=NeuralConfig(), loss=SquaredErrorConfig(), optimizer=AdamConfig())


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_survives_a_round_trip_through_json(name: str) -> None:
    assert from_json(RunConfig, to_json(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("devices=2", "devices", 2),
        ("devices=none", "devices", None),
        ("jit_compile=true", "jit_compile", True),
        ("jit_compile=False", "jit_compile", False),
        ("model.hidden=7,3", "model.hidden", (7, 3)),
        ("loss.event_weights=1,2.5,4", "loss.event_weights", (1.0, 2.5, 4.0)),
        ("optimizer.learning_rate=1e-2", "optimizer.learning_rate", 0.01),
        ("optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
    ],
)
def test_a_setting_is_parsed_by_the_type_of_its_field(setting: str, path: str, value: object) -> None:
    config: object = apply_settings(CONFIG, [setting])
    for name in path.split("."):
        config = getattr(config, name)
    assert config == value
    assert type(config) is type(value)


def test_each_preset_has_its_own_name() -> None:
    assert {name: preset.name for name, preset in PRESETS.items()} == {name: name for name in PRESETS}
    assert CONFIG.name == "custom"


def test_a_text_field_accepts_only_its_values() -> None:
    found = apply_settings(PRESETS["mf"], ["model.history_length=0", "model.similarity=dot"])
    assert found.model.similarity == "dot"
    with pytest.raises(ValueError, match=r"model\.similarity must be one of cosine, dot, got euclid"):
        apply_settings(PRESETS["mf"], ["model.similarity=euclid"])


def test_the_last_setting_of_a_key_wins() -> None:
    assert apply_settings(CONFIG, ["epochs=3", "epochs=4"]).epochs == 4


def test_an_unknown_key_suggests_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"^unknown setting `input\.batchsize`; did you mean `input\.batch_size`\?$"):
        apply_settings(CONFIG, ["input.batchsize=3"])


def test_a_key_that_resembles_no_other_names_the_groups_of_settings() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown setting `qqqq`; docs/settings.md lists all settings: .*model\.….{,600}$"
    ):
        apply_settings(CONFIG, ["qqqq=3"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=99999999999999999999", "epochs must be a whole number of at most 64 bits, got 99999999999999999999"),
        ("epochs=1000001", r"epochs must be in \[1, 1000000\], got 1000001"),
        ("input.batch_size=9223372036854775808", "input.batch_size must be a whole number of at most 64 bits"),
    ],
)
def test_a_number_that_tensorflow_could_not_take_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_settings(CONFIG, [setting])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoKinds:
    kind: Literal["first", "second"] = "first"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    part: TwoKinds | SquaredErrorConfig = dataclasses.field(default_factory=TwoKinds)


def test_a_kind_can_be_set_if_its_dataclass_has_several() -> None:
    changed = apply_settings(Holder(), ["part.kind=second"])
    assert changed == Holder(part=TwoKinds(kind="second")) == from_json(Holder, to_json(changed))
    with pytest.raises(ValueError, match=r"part\.kind must be one of first, second, squared_error, got third"):
        apply_settings(Holder(), ["part.kind=third"])


@pytest.mark.parametrize("setting", ["epochs", "model=3", "model.kind=neural", "model.similarity=dot", "=3"])
def test_an_unknown_setting_is_refused(setting: str) -> None:
    # only a factorization has a similarity, and CONFIG has the neural model
    with pytest.raises(ValueError, match=r"the form KEY=VALUE|^unknown setting"):
        apply_settings(CONFIG, [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=many", "epochs must be a whole number, got many"),
        ("epochs=2.5", "epochs must be a whole number, got 2.5"),
        ("epochs=none", "epochs must be a whole number, got none"),
        ("jit_compile=1", "jit_compile must be true or false, got 1"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate must be a number, got fast"),
        ("model.hidden=7,x", "model.hidden must be a whole number, got x"),
        ("name= ", "name must be a word, such as mf, got ' '"),
        ("epochs=0", "epochs must be in"),
        ("model.dim=0", "model.dim must be at least 1, got 0"),
        ("devices=0", "devices must be at least 1, or none, got 0"),
        (
            "loss.event_weights=0,0",
            "loss.event_weights must be numbers of at least 0, not all 0",
        ),
        ("seed=-1", "seed must be in"),
    ],
)
def test_an_invalid_value_is_refused_with_its_key(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        apply_settings(CONFIG, [setting])


def test_json_with_unknown_missing_or_mistyped_keys_is_refused() -> None:
    values = to_json(CONFIG)
    with pytest.raises(ValueError, match=r"unknown keys: model\.depth; .* the known keys are model\.kind, model\.dim"):
        from_json(RunConfig, {**values, "model": {**values["model"], "depth": 3}})
    with pytest.raises(ValueError, match="the config lacks keys: optimizer"):
        from_json(RunConfig, {name: value for name, value in values.items() if name != "optimizer"})
    with pytest.raises(ValueError, match="epochs must be a whole number, got 3"):
        from_json(RunConfig, {**values, "epochs": "3"})
    kinds = "matrix_factorization, neural, towers, walk, session_knn, ease"
    with pytest.raises(ValueError, match=rf"model\.kind must be one of {kinds}, got tower"):
        from_json(RunConfig, {**values, "model": {"kind": "tower"}})


def test_a_missing_key_takes_its_default() -> None:
    values = to_json(CONFIG)
    del values["jit_compile"]
    assert from_json(RunConfig, values) == CONFIG


def test_the_neural_model_cannot_be_trained_with_a_softmax() -> None:
    with pytest.raises(
        ValueError, match=r"loss\.kind=sampled_softmax compares the scores of many items; use loss\.kind=squared_error"
    ):
        RunConfig(model=NeuralConfig(), loss=SampledSoftmaxConfig(), optimizer=AdamConfig())


@pytest.mark.parametrize("preset", ["walk", "session_knn", "ease"])
def test_a_counted_model_cannot_be_used_with_squared_error(preset: str) -> None:
    with pytest.raises(
        ValueError, match=r"cannot be used with loss\.kind=squared_error, because this model ranks items"
    ):
        dataclasses.replace(PRESETS[preset], loss=SquaredErrorConfig())


@pytest.mark.parametrize(
    ("preset", "setting", "message"),
    [
        ("mf", "loss.uniform_share=2", r"loss\.uniform_share must be in \[0, 1\], got 2"),
        ("mf", "loss.l2=-1", r"loss\.l2 must be at least 0, got -1"),
        ("mf", "loss.half_life_days=0", r"loss\.half_life_days must be above 0, or none, got 0"),
        ("mf", "als.l2=0", r"als\.l2 must be above 0, got 0"),
        ("mf", "als.unobserved_weight=0", r"als\.unobserved_weight must be above 0"),
        ("mf", "solver=newton", "solver must be one of sgd, als, count, got newton"),
        ("mf", "model.history_length=-1", r"model\.history_length must be at least 0, got -1"),
        ("nn", "solver=als", "solver=als needs model.kind=matrix_factorization and .*, got model.kind=towers"),
        ("notebook-mf", "solver=als", "and loss.kind=squared_error; use solver=sgd or the preset mf"),
        (
            "mf",
            "solver=count",
            "session_knn and ease need solver=count, .* model.kind=matrix_factorization and solver=count",
        ),
        ("walk", "solver=sgd", "got model.kind=walk and solver=sgd; use a preset without changing its solver"),
        ("walk", "model.item_power=-1,0,0", r"model\.item_power must be numbers of at least 0, got -1.0,0.0,0.0"),
        (
            "walk",
            "model.item_power=0.5",
            r"model\.neighbour_power must be as many numbers as model\.item_power, 1, got",
        ),
        ("walk", "model.num_neighbours=0", r"model\.num_neighbours must be at least 1, got 0"),
        ("walk", "model.max_items=0", r"model\.max_items must be at least 1, got 0"),
        (
            "session_knn",
            "solver=sgd",
            "got model.kind=session_knn and solver=sgd; use a preset without changing its solver",
        ),
        ("session_knn", "model.length_power=-1,0,0", r"model\.length_power must be numbers of at least 0, got -1.0,0"),
        (
            "session_knn",
            "model.item_power=0.5",
            r"model\.length_power must be as many numbers as model\.item_power, 1, got",
        ),
        ("session_knn", "model.max_timelines=0", r"model\.max_timelines must be at least 1, got 0"),
        ("ease", "model.l2=0,1,1,1", r"model\.l2 must be numbers above 0, got 0.0,1.0"),
        ("ease", "model.l2=1", r"model\.recency_power must be as many numbers as model\.l2, 1, got"),
        ("ease", "model.num_frequent_items=0", r"model\.num_frequent_items must be at least 1, got 0"),
        ("nn", "loss.l2=1", r"loss\.l2 must be 0 unless the model is a factorization with model\.similarity=dot"),
        ("mf", "loss.l2=0.1", "as a cosine ignores vector lengths, got 0.1"),
    ],
)
def test_a_setting_that_conflicts_with_others_is_refused(preset: str, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_settings(PRESETS[preset], [setting])


def test_a_softmax_needs_negatives() -> None:
    with pytest.raises(ValueError, match=r"^num_negatives must be above 0 if loss\.in_batch_negatives is false"):
        SampledSoftmaxConfig(num_negatives=0, in_batch_negatives=False)


def test_visitors_built_from_their_items_need_a_cosine_and_a_softmax() -> None:
    with pytest.raises(ValueError, match=r"^similarity must be cosine if model\.history_length is above 0"):
        MatrixFactorizationConfig(history_length=3, similarity="dot")
    with pytest.raises(ValueError, match=r"model\.history_length must be 0 with loss\.kind=squared_error"):
        RunConfig(model=MatrixFactorizationConfig(history_length=3), loss=SquaredErrorConfig(), optimizer=AdamConfig())


def test_least_squares_score_with_plain_dot_products() -> None:
    model = apply_settings(PRESETS["mf"], ["solver=als", "model.dim=3"]).scored_model
    plain = MatrixFactorizationConfig(dim=3, similarity="dot", scale=1.0, has_item_bias=False)
    assert dataclasses.replace(model, initial_stddev=plain.initial_stddev) == plain


def test_differences_name_each_key_with_both_values() -> None:
    other = dataclasses.replace(
        CONFIG, epochs=2, input=InputConfig(batch_size=8), model=MatrixFactorizationConfig(dim=5)
    )
    found = differences(CONFIG, other)
    assert "epochs: 1, now 2" in found
    assert "input.batch_size: 1024, now 8" in found
    assert "model.hidden: [80, 40, 20], now absent" in found
    assert 'model.similarity: absent, now "cosine"' in found
    assert not [line for line in found if line.startswith("model.dim")]  # both are 5
    assert differences(CONFIG, CONFIG) == []
