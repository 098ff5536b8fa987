"""Names, types and meanings of the features that preprocessing passes to training."""

from enum import StrEnum

SCHEMA_VERSION = 1

DEFAULT_KINDS: tuple[str, ...] = ("view", "addtocart", "transaction")
"""Event kinds of a shop without a setting for event kinds: those of Retailrocket, in funnel order."""

MAX_KINDS = 32
"""Maximum number of event kinds in a dataset."""


class Split(StrEnum):
    """The three parts of a dataset, in order of time if split by time."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class SplitMethod(StrEnum):
    """How events were divided into splits."""

    TIME = "time"
    RANDOM = "random"  # leaks later events into training; to compare with the original notebook
    NONE = "none"  # all events train; for the model that is deployed


class Vocabulary(StrEnum):
    """The vocabularies of ids: files with one id per line, the most frequent first."""

    VISITORS = "visitors"
    ITEMS = "items"
    CATEGORIES = "categories"
    PROPERTY_VALUES = "property_values"


TIMELINE_FEATURES: tuple[str, ...] = ("visitor", "position", "item", "event", "timestamp_ms", "is_target")
"""Names of the int64 features of a timeline block. Each feature has one value per row.

visitor       index in the visitor vocabulary, or the vocabulary's size plus the number of an out-of-vocabulary bucket
position      number of earlier rows in the same timeline, so 0 starts a timeline. Do not detect starts by changes of
              `visitor`, because neighbouring visitors may share an out-of-vocabulary bucket
item          like `visitor`, for the item vocabulary
event         index in the manifest's event_kinds
timestamp_ms  UTC milliseconds since 1970
is_target     1: the row belongs to the split; 0: the row is context from an earlier split
"""

ROW_WEIGHT = "weight"
"""Name of the float32 feature with the weight of each row, at least 0. All weights are 1 if the log has none."""

UNKNOWN_VISITOR_ID = "unknown_visitor_id"
"""Name of the string feature with the ids of visitors outside the vocabulary, one per timeline of such a visitor, in
timeline order. Readers need the ids because these visitors share out-of-vocabulary buckets."""
