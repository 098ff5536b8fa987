"""Settings of a shop's event kinds, such as view and purchase."""

import math
import unicodedata
from dataclasses import dataclass

from contract.schema import DEFAULT_KINDS, MAX_KINDS


@dataclass(frozen=True, kw_only=True)
class KindConfig:
    """The event kinds of the shop, and the words that the log uses for these kinds."""

    names: tuple[str, ...] = DEFAULT_KINDS
    """Names of the shop's 1 to 32 event kinds, in funnel order, for example from view to purchase. If `columns.kind` is
    a constant, the default is that kind alone."""

    weights: tuple[float, ...] | None = None
    """Training weight of each event kind, in the order of `names`. None: each loss uses its own defaults."""

    words: tuple[str, ...] = ()
    """`WORD=KIND` for each word of the log that differs from the name of its kind, such as `Kauf=transaction`."""

    dropped: tuple[str, ...] = ()
    """Words of the log for event kinds that are dropped, such as `page_view`."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_KINDS:
            raise ValueError(f"kinds.names must have 1 to {MAX_KINDS} names, got {len(self.names)}")
        invalid = next((name for name in self.names if not is_kind_name(name)), None)
        if invalid is not None:
            raise ValueError(
                "the names in kinds.names must not be blank and must not contain `=` or control characters, got "
                f"{invalid!r}; choose another name, and map the log's word to it in kinds.words"
            )
        repeated = next((name for name in self.names if self.names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"kinds.names must be distinct, got {repeated!r} twice")
        self._check_weights()
        for entry in self.words:
            _, equals, kind = entry.rpartition("=")
            if not equals or kind not in self.names:
                raise ValueError(
                    f"kinds.words must be WORD=KIND with one of the kinds {', '.join(self.names)}, got {entry!r}"
                )

    def _check_weights(self) -> None:
        weights = self.weights
        if weights is None:
            return
        if len(weights) != len(self.names):
            raise ValueError(
                f"kinds.weights must have one weight for each of {', '.join(self.names)}, got {len(weights)}"
            )
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):  # rejects NaN too
            found = ", ".join(f"{weight:g}" for weight in weights)
            raise ValueError(f"kinds.weights must be finite and at least 0, and not all 0, got {found}")


def is_kind_name(text: str) -> bool:
    """Returns True for a valid name of an event kind: not blank, no control characters, no `=`."""
    return bool(text.strip()) and "=" not in text and not any(unicodedata.category(letter) == "Cc" for letter in text)
