"""Names, types and meanings of the features that preprocessing passes to training."""

from enum import StrEnum

SCHEMA_VERSION = 1

DEFAULT_KINDS: tuple[str, ...] = ("view", "addtocart", "transaction")
"""Default event kinds, for a shop that does not name its own: those of Retailrocket, in the order of the funnel."""

MAX_KINDS = 32
"""Largest number of event kinds of a dataset."""


class Split(StrEnum):
    """The three parts of a dataset, in order of time."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class SplitMethod(StrEnum):
    """How events were divided into splits."""

    TIME = "time"
    RANDOM = "random"  # leaks later events into training; to compare with the original notebook
    NONE = "none"  # all events train; for the model that is deployed


class Vocabulary(StrEnum):
    """The id vocabularies; each is a file with one id per line, most frequent first."""

    VISITORS = "visitors"
    ITEMS = "items"
    CATEGORIES = "categories"
    PROPERTY_VALUES = "property_values"


TIMELINE_FEATURES: tuple[str, ...] = ("visitor", "position", "item", "event", "timestamp_ms", "is_target")
"""The int64 lists of one timeline block, all of the same length.

visitor       vocabulary index, or the vocabulary's size plus the number of an out-of-vocabulary bucket
position      number of the visitor's earlier rows in the block; 0 starts a timeline (a change of `visitor` does not
              mark a start: neighbouring visitors may share an out-of-vocabulary bucket)
item          as `visitor`, for items
event         index in the manifest's event_kinds
timestamp_ms  UTC milliseconds since 1970
is_target     1: the row belongs to the split; 0: an earlier row of the visitor, as context
"""

ROW_WEIGHT = "weight"
"""The float32 list of a timeline block with the weight of each row, at least 0; all 1 if the log has no weights."""

UNKNOWN_VISITOR_ID = "unknown_visitor_id"
"""The string list of a timeline block with the ids of the visitors outside the vocabulary: one per timeline of such a
visitor, in the order of the timelines. The ids are needed because these visitors share out-of-vocabulary buckets."""
