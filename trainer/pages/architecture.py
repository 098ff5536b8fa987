"""A model's parts and their shapes, for its picture.

Shapes as the picture writes them: B rows, C candidates, H history.
"""

from collections.abc import Mapping

from common.report.run_charts import DiagramBox
from trainer.config.run import MatrixFactorizationConfig, ModelConfig, NeuralConfig, TowersConfig

_PAIR_INPUTS = [DiagramBox("visitors", "[B]", 0), DiagramBox("items", "[B or C]", 0)]


def describe_architecture(model: ModelConfig, tables: Mapping[str, tuple[int, int]]) -> list[DiagramBox]:
    """The parts from what is given to the score.

    Args:
      model: as it is scored.
      tables: [rows, D] of each table, by name; those unknown are left without numbers.
    """
    if isinstance(model, NeuralConfig):
        return _neural(model, tables)
    if isinstance(model, TowersConfig):
        return _towers(model, tables)
    if isinstance(model, MatrixFactorizationConfig):
        return _factorization(model, tables)
    return _any(model, tables)


def _table(name: str, tables: Mapping[str, tuple[int, int]], reads: str, level: int = 1) -> DiagramBox:
    rows, width = tables.get(name, (None, None))
    shape = f"{rows:,} × {width}" if rows else "rows × D"
    return DiagramBox(f"{name} table", shape, level, (reads,), is_trained=True)


def _any(model: ModelConfig, tables: Mapping[str, tuple[int, int]]) -> list[DiagramBox]:
    """What is known of a model without a picture of its own."""
    read = [_table(name, tables, "rows") for name in tables]
    return [
        DiagramBox("rows", "[B]", 0),
        *read,
        DiagramBox(model.kind.replace("_", " "), f"D {model.dim}", 2, tuple(box.name for box in read)),
        DiagramBox("score", "[B, C]", 3, (model.kind.replace("_", " "),)),
    ]


def _neural(model: NeuralConfig, tables: Mapping[str, tuple[int, int]]) -> list[DiagramBox]:
    boxes = [
        *_PAIR_INPUTS,
        _table("visitor", tables, "visitors"),
        _table("item", tables, "items"),
        DiagramBox("side by side", f"[B, {2 * model.dim}]", 2, ("visitor table", "item table")),
    ]
    widths = [2 * model.dim, *model.hidden, 1]
    for layer in range(len(widths) - 1):
        name = f"dense {layer + 1}, relu"
        shape = f"{widths[layer]} × {widths[layer + 1]}"
        boxes.append(DiagramBox(name, shape, 3 + layer, (boxes[-1].name,), is_trained=True))
    return [*boxes, DiagramBox("event weight", "[B]", 2 + len(widths), (boxes[-1].name,))]


def _factorization(model: MatrixFactorizationConfig, tables: Mapping[str, tuple[int, int]]) -> list[DiagramBox]:
    similarity = f"cosine × {model.scale:g}" if model.similarity == "cosine" else "dot product"
    if model.history_length:
        visitors = [
            DiagramBox("history", f"[B, {model.history_length}]", 0),
            DiagramBox("items", "[B or C]", 0),
            DiagramBox("item table", _table("item", tables, "items").shape, 1, ("history", "items"), is_trained=True),
            DiagramBox("sum of directions", f"[B, {model.dim}]", 2, ("item table",)),
            DiagramBox("item vectors", f"[C, {model.dim}]", 2, ("item table",)),
        ]
    else:
        visitors = [
            *_PAIR_INPUTS,
            _table("visitor", tables, "visitors"),
            _table("item", tables, "items"),
            DiagramBox("visitor vectors", f"[B, {model.dim}]", 2, ("visitor table",)),
            DiagramBox("item vectors", f"[C, {model.dim}]", 2, ("item table",)),
        ]
    pair = tuple(box.name for box in visitors[-2:])
    bias = " + item bias" if model.has_item_bias else ""
    return [
        *visitors,
        DiagramBox(similarity, f"[B, C]{bias}", 3, pair),
        DiagramBox("score", "[B, C]", 4, (similarity,)),
    ]


def _towers(model: TowersConfig, tables: Mapping[str, tuple[int, int]]) -> list[DiagramBox]:
    dim, length = model.dim, model.history_length
    row = ("item table", "feature table") if "feature" in tables else ("item table",)
    feature = [_table("feature", tables, "contents of items")] if "feature" in tables else []
    contents = [DiagramBox("contents of items", "from the catalogue", 0)] if feature else []
    own = [_table("visitor", tables, "visitors")] if "visitor" in tables else []
    visitors = [DiagramBox("visitors", "[B]", 0)] if own else []
    return [
        DiagramBox("history", f"[B, {length}] items, kinds, ages", 0),
        DiagramBox("candidates", "[C]", 0),
        *contents,
        *visitors,
        DiagramBox("item table", _table("item", tables, "").shape, 1, ("history", "candidates"), is_trained=True),
        *feature,
        *own,
        DiagramBox("attention", f"[B, {length}] → [B, {dim}]", 2, row, is_trained=True),
        DiagramBox("candidate vectors", f"[C, {dim}]", 2, row),
        DiagramBox("dense, gelu", f"{2 * dim} × {2 * dim}, {2 * dim} × {dim}", 3, ("attention",), is_trained=True),
        DiagramBox("visitor vectors", f"[B, {dim}]", 4, ("dense, gelu", *(box.name for box in own)), is_trained=False),
        DiagramBox("return bonuses", f"[B, {length}]", 5, ("dense, gelu",), is_trained=True),
        DiagramBox("cosine × scale", "[B, C] + item bias", 5, ("visitor vectors", "candidate vectors")),
        DiagramBox("score", "[B, C]", 6, ("cosine × scale", "return bonuses")),
    ]
