"""Names, types and meaning of every feature that crosses from preprocessing to training."""

from enum import StrEnum

SCHEMA_VERSION = 1

EVENT_KINDS: tuple[str, ...] = ("view", "addtocart", "transaction")
"""Event kinds in the order of the funnel; the code of a kind is its place here."""

VIEW, ADD_TO_CART, TRANSACTION = range(len(EVENT_KINDS))


class Split(StrEnum):
    """The three parts of a dataset, in order of time."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class SplitMethod(StrEnum):
    """How events were divided into splits."""

    TIME = "time"
    RANDOM = "random"  # leaks later events into training; kept to compare with the original notebook
    NONE = "none"  # everything trains; for the model that goes live


class Vocabulary(StrEnum):
    """The id vocabularies; each is a file of one id a line, most frequent first."""

    VISITORS = "visitors"
    ITEMS = "items"
    CATEGORIES = "categories"
    PROPERTY_VALUES = "property_values"


TIMELINE_FEATURES: tuple[str, ...] = ("visitor", "position", "item", "event", "timestamp_ms", "is_target")
"""The equally long int64 lists of one timeline block.

visitor       vocabulary index, or the vocabulary's size plus an out-of-vocabulary bucket
position      number of the visitor's rows before this one in the block; 0 begins a timeline (visitors who share an
              out-of-vocabulary bucket may be neighbours, so a change of `visitor` alone does not tell)
item          the same as visitor, for items
event         place in EVENT_KINDS
timestamp_ms  UTC milliseconds since 1970
is_target     1: the row belongs to the split; 0: an earlier row of the visitor, given as context
"""
