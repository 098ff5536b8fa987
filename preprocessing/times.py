"""Parses event times to UTC milliseconds, from numbers since 1970, ISO 8601, a given format, or Arrow's time types.

Shapes: N values.
"""

from dataclasses import replace
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.config import PLAUSIBLE_FROM_MS, PLAUSIBLE_UNTIL_MS, TimeConfig
from preprocessing.validation import BAD_TIME, IMPLAUSIBLE_TIME, Flaws

_GUESSED_FROM_MS = 631_152_000_000  # 1990-01-01; smaller numbers are more likely ids
_Unit = Literal["s", "ms", "us", "ns"]
_PER_MS: dict[_Unit, float] = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}
_NUMBER = r"^([0-9]{1,18}|[1-8][0-9]{18})(\.[0-9]*)?$"  # fits in 64 bits; next to NaN, pandas writes 7 as 7.0
_YEAR = r"[0-9]{4}(?:\.0)?"
_ISO_ZONE = r"(?:Z|UTC)$|[T ]\d\d.*[+-]\d\d(?::?\d\d)?$"
_COMMON_FORMATS = (
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%Y%m%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
)


def resolve_times(sample: pa.Array, config: TimeConfig, column: str) -> TimeConfig:
    """Replaces `unit=auto` by the unit or format that fits most values of a sample.

    The config is unchanged if it gives a unit or a format, or if the sample has a time type of Arrow. Without values,
    the unit is milliseconds.

    Args:
      sample: the first values of the column.
      config: settings of the times.
      column: name of the column, for error messages.

    Raises:
      ValueError: no unit or format fits, or several formats fit.
    """
    if config.unit != "auto" or config.format is not None or is_time_type(sample.type):
        return config
    values = drop_missing(sample)
    found = [replace(config, unit=option.unit, format=option.format) for option in guess_times(values)]
    if not len(values) or len(found) == 1:
        return found[0] if found else replace(config, unit="ms")
    example = repr(str(values[0].as_py()))
    if found:
        formats = " or ".join(f"`{option.format or option.unit}`" for option in found)
        raise ValueError(
            f"`{column}` has times such as {example}, which fit several formats: {formats}; set time.format "
            "to the right one"
        )
    raise ValueError(
        f"`{column}` has values such as {example}, which fit no known time format: ISO 8601, a common date format, or "
        "seconds, milliseconds, microseconds or nanoseconds since 1970 (years 1990 to 2100; set time.unit for "
        "earlier ones, from 1970-02-18 on); set time.format to the format of these values, such as %d.%m.%Y %H:%M:%S, "
        "or give another column as columns.time"
    )


def check_times(sample: pa.Array, config: TimeConfig, column: str, max_reject_share: float) -> None:
    """Checks that the times in a sample [N] fit their unit or format.

    Raises:
      ValueError: more than `max_reject_share` of the times cannot be read or are implausible, and they fit another
        unit or format; or no time can be read.
    """
    flaws = Flaws.none(len(sample))
    parse_times(sample, config, flaws)
    unreadable, implausible = (flaws.reasons.count(reason) for reason in (BAD_TIME, IMPLAUSIBLE_TIME))
    if unreadable + implausible <= max_reject_share * len(sample):
        return
    others = [time for time in guess_times(sample) if (time.unit, time.format) != (config.unit, config.format)]
    if len(others) != 1 and unreadable < len(sample):
        return
    example = str(sample[int(flaws.invalid_rows[0])].as_py())
    problem = "that cannot be read as" if unreadable else "outside 1970-02-18 to 2100 if they are read as"
    advice = f"they fit {_name(others[0])}, so {_advise(config, others[0])}" if len(others) == 1 else "correct [time]"
    raise ValueError(f"`{column}` has times {problem} {_name(config)}, such as {example!r}; {advice}")


def _name(config: TimeConfig) -> str:
    return config.format or config.unit


def _advise(config: TimeConfig, better: TimeConfig) -> str:
    if better.format is not None:
        return f"set time.format to {better.format}"
    return f"set time.unit to {better.unit}{' and remove time.format' * (config.format is not None)}"


def drop_missing(values: pa.Array) -> pa.Array:
    """Returns the values that are neither null nor empty."""
    present = values.drop_null()
    return present.filter(pc.not_equal(present, "")) if pa.types.is_string(present.type) else present


def guess_times(values: pa.Array) -> list[TimeConfig]:
    """Returns the units or formats that fit most values of a sample; none for plain years, such as 1995."""
    numbers = _to_numbers(values)
    if numbers is not None:
        low, high = (np.nanquantile(numbers, share) for share in (0.1, 0.9)) if len(numbers) else (0, 0)
        fits = [
            TimeConfig(unit=unit)
            for unit, per_ms in _PER_MS.items()
            if _GUESSED_FROM_MS * per_ms <= low and high < PLAUSIBLE_UNTIL_MS * per_ms
        ]
        if fits:
            return fits
    texts = _distinct_texts(values)
    if not len(texts) or texts.str.fullmatch(_YEAR).mean() > 0.9:  # years, for example of release, are no event times
        return []
    if _parse_iso(texts).notna().mean() > 0.9 and numbers is None:
        return [TimeConfig(unit="iso")]
    return [
        TimeConfig(format=pattern)
        for pattern in _COMMON_FORMATS
        if pd.to_datetime(texts, format=pattern, errors="coerce").notna().mean() > 0.9
    ]


def parse_times(values: pa.Array, config: TimeConfig, flaws: Flaws) -> np.ndarray:
    """Parses times to milliseconds since 1970 (UTC), [N] int64. An unreadable time becomes 0.

    Marks unreadable and implausible times in `flaws`. Times without a zone are in `config.zone`. A local time that
    occurs twice, when clocks are set back, is read as the earlier one. With `unit=auto`, texts are ISO 8601, and
    numbers are milliseconds.
    """
    is_text = pa.types.is_string(values.type)
    if is_time_type(values.type):
        milliseconds = _from_type(values, config.zone)
    elif config.format is None and config.unit != "iso" and not (config.unit == "auto" and is_text):
        milliseconds = _from_numbers(values, "ms" if config.unit == "auto" else config.unit)
    else:
        milliseconds = _from_texts(values, config)
    flaws.mark(milliseconds.is_null().to_numpy(zero_copy_only=False), BAD_TIME)
    found: np.ndarray = milliseconds.fill_null(0).to_numpy()
    flaws.mark((found < PLAUSIBLE_FROM_MS) | (found >= PLAUSIBLE_UNTIL_MS), IMPLAUSIBLE_TIME)
    return found


def have_zones(values: pa.Array, config: TimeConfig) -> bool:
    """Returns True if no time depends on `config.zone`, because all are numbers since 1970 or name their zone."""
    if config.format is None and config.unit != "iso":
        return True
    texts = _distinct_texts(drop_missing(values))
    return bool(_name_zone(texts, config.format).all())


def is_time_type(kind: pa.DataType) -> bool:
    """Returns True for timestamps and dates."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _from_type(values: pa.Array, zone: str) -> pa.Array:
    stamps = pc.cast(values, pa.timestamp("ms", getattr(values.type, "tz", None)), safe=False)
    if stamps.type.tz is None and zone != "UTC":
        stamps = pc.assume_timezone(stamps, zone, ambiguous="earliest", nonexistent="latest")
    return pc.cast(stamps, pa.int64(), safe=False)


def _from_numbers(values: pa.Array, unit: _Unit) -> pa.Array:
    if pa.types.is_string(values.type):
        texts = pc.if_else(pc.match_substring_regex(values, _NUMBER), values, None)
        is_whole = unit != "s"
        values = pc.replace_substring_regex(texts, r"\..*", "") if is_whole else texts
        values = pc.cast(values, pa.int64() if is_whole else pa.float64())
    values = _without_decimals(values)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_finite(values), values, None)
    elif not pa.types.is_integer(values.type):
        return pa.nulls(len(values), pa.int64())
    if unit == "s":
        return pc.cast(pc.round(pc.multiply(pc.cast(values, pa.float64()), 1000.0)), pa.int64(), safe=False)
    return pc.divide(pc.cast(values, pa.int64(), safe=False), int(_PER_MS[unit]))


def _from_texts(values: pa.Array, config: TimeConfig) -> pa.Array:
    encoded = _to_text(values).dictionary_encode()  # dates repeat
    texts = pd.Series(encoded.dictionary.to_pandas(), dtype=object)
    if config.format is None:
        stamps = _parse_iso(texts)
    else:
        stamps = pd.to_datetime(texts, format=config.format, errors="coerce", utc=True)
    has_zone = _name_zone(texts, config.format)
    milliseconds = _to_milliseconds(stamps).copy()
    # earlier and later years are implausible, and time zones may not support them
    is_local = ~has_zone & (config.zone != "UTC") & stamps.dt.year.between(1970, 2110).to_numpy()
    if is_local.any():
        milliseconds[is_local] = _to_milliseconds(_read_in_zone(stamps[is_local], config.zone))
    distinct = pa.array(milliseconds.astype(np.int64), mask=np.isnat(milliseconds))
    return distinct.take(encoded.indices)


def _name_zone(texts: pd.Series, pattern: str | None) -> np.ndarray:
    """Returns a mask [N] of the times that name their zone. `pattern`: their format; None: ISO 8601."""
    if pattern is None:
        return texts.str.contains(_ISO_ZONE).to_numpy(bool)
    return np.full(len(texts), "%z" in pattern.lower())


def _read_in_zone(stamps: pd.Series, zone: str) -> pd.Series:
    """Replaces the zone UTC by `zone`, and keeps the dates and the times of day."""
    # for times that occur twice, or not at all, when clocks change
    is_first = np.ones(len(stamps), bool)
    return stamps.dt.tz_localize(None).dt.tz_localize(ZoneInfo(zone), ambiguous=is_first, nonexistent="shift_forward")


def _to_milliseconds(stamps: pd.Series) -> np.ndarray:
    return stamps.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ms]")


def _parse_iso(texts: pd.Series) -> pd.Series:
    """Parses ISO 8601; times without a zone are in UTC. BigQuery's suffix `UTC` is read as `Z`."""
    dates = texts.where(texts.str.match(r"\s*\d"))  # pandas reads `now` and `today` as the time of reading
    return pd.to_datetime(dates.str.replace(r" ?UTC$", "Z", regex=True), format="ISO8601", errors="coerce", utc=True)


def _without_decimals(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.float64()) if pa.types.is_decimal(values.type) else values


def _to_numbers(values: pa.Array) -> np.ndarray | None:
    """Returns the finite numbers among the values, as float64; None if the values are not numbers.

    Texts count as numbers if at least 90% of them have 9 to 19 digits before an optional decimal point.
    """
    values = _without_decimals(values)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers[np.isfinite(numbers)]
    if not pa.types.is_string(values.type):
        return None
    is_number = pc.match_substring_regex(values, r"^[0-9]{9,19}(\.[0-9]*)?$")
    if (pc.sum(is_number).as_py() or 0) < 0.9 * len(values):
        return None
    return pc.cast(values.filter(is_number), pa.float64()).to_numpy()


def _distinct_texts(values: pa.Array) -> pd.Series:
    return pd.Series(_to_text(values).unique().to_pandas(), dtype=object)


def _to_text(values: pa.Array) -> pa.Array:
    return values if pa.types.is_string(values.type) else pc.cast(values, pa.string())
