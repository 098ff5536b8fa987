"""Tests the conversion of times of every form to UTC milliseconds."""

import dataclasses
import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.config import TimeConfig
from preprocessing.times import check_times, guess_times, parse_times, resolve_times
from preprocessing.validation import BAD_TIME, IMPLAUSIBLE_TIME, Flaws

MS = 1_709_262_000_000  # 2024-03-01T03:00:00Z


def parse(values: pa.Array, config: TimeConfig) -> tuple[list[int], list[str]]:
    flaws = Flaws.none(len(values))
    return parse_times(values, config, flaws).tolist(), flaws.reasons


@pytest.mark.parametrize(
    ("values", "config"),
    [
        (pa.array(["1709262000000"]), TimeConfig(unit="ms")),
        (pa.array([1_709_262_000]), TimeConfig(unit="s")),
        (pa.array(["1709262000"]), TimeConfig(unit="s")),
        (pa.array(["1709262000.000"]), TimeConfig(unit="s")),
        (pa.array([1.709262e9]), TimeConfig(unit="s")),
        (pa.array(["1709262000000000"]), TimeConfig(unit="us")),
        (pa.array([1_709_262_000_000_000_000]), TimeConfig(unit="ns")),
        (pa.array(["2024-03-01T03:00:00Z"]), TimeConfig(unit="iso")),
        (pa.array(["2024-03-01 03:00:00"]), TimeConfig(unit="iso")),
        (pa.array(["1709262000000000000"]), TimeConfig(unit="ns")),
        (pa.array(["1709262000000.0"]), TimeConfig(unit="ms")),
        (pa.array([decimal.Decimal(MS)], pa.decimal128(38, 0)), TimeConfig(unit="ms")),
        (pa.array([MS], pa.uint64()), TimeConfig(unit="ms")),
        (pa.array(["2024-03-01 03:00:00 UTC"]), TimeConfig(unit="iso", zone="Europe/Berlin")),
        (pa.array(["2024-03-01T03:00:00Z"]), TimeConfig()),  # texts, while other files have Arrow times
        (pa.array(["2024-03-01T04:00:00+01:00"]), TimeConfig(unit="iso")),
        (pa.array(["2024-03-01T04:00:00"]), TimeConfig(unit="iso", zone="Europe/Berlin")),
        (pa.array(["01.03.2024 04:00"]), TimeConfig(format="%d.%m.%Y %H:%M", zone="Europe/Berlin")),
        (pa.array([datetime.datetime(2024, 3, 1, 3)], pa.timestamp("us")), TimeConfig()),
        (pa.array([datetime.datetime(2024, 3, 1, 4)], pa.timestamp("ns")), TimeConfig(zone="Europe/Berlin")),
        (pa.array([datetime.datetime(2024, 3, 1, 3)], pa.timestamp("s", "Europe/Berlin")), TimeConfig()),
    ],
)
def test_a_time_of_any_form_becomes_utc_milliseconds(values, config):
    assert parse(values, config) == ([MS], [])


@pytest.mark.parametrize("config", [TimeConfig(unit="iso"), TimeConfig(format="%Y-%m-%dT%H:%M:%S%z")])
def test_times_may_have_several_offsets(config):
    texts = pa.array(["2024-03-01T04:00:00+01:00", "2024-03-01T05:00:00+0200", "2024-03-01T03:00:00Z"])
    for zone in ("UTC", "Europe/Berlin"):
        assert parse(texts, dataclasses.replace(config, zone=zone)) == ([MS] * 3, [])


def test_the_zone_is_only_for_times_without_one():
    texts = pa.array(["2024-03-01T04:00:00+01:00", "2024-03-01T04:00:00", "2024-03-01 04:00:00.0-00:00"])
    assert parse(texts, TimeConfig(unit="iso", zone="Europe/Berlin")) == ([MS, MS, MS + 3_600_000], [])


def test_times_at_the_ends_of_the_calendar_are_implausible():
    texts = pa.array(["2024-03-01 03:00:00", "9999-12-31 23:59:59", "0001-01-01 00:00:00"])
    assert parse(texts, TimeConfig(unit="iso", zone="America/New_York"))[1] == [IMPLAUSIBLE_TIME] * 2
    numbers = pa.array([float(MS), float("nan"), float("inf")])
    assert parse(numbers, TimeConfig(unit="ms")) == ([MS, 0, 0], [BAD_TIME] * 2)
    assert parse(pa.array(["9223372036854775808"]), TimeConfig(unit="ns"))[1] == [BAD_TIME]


def test_times_before_1990_need_their_unit_or_format():
    seconds = pa.array(["120700800", "631151999"])  # 1973-10-29, and the last second of 1989
    with pytest.raises(ValueError, match=r"years 1990 to 2100; set time.unit for earlier ones, from 1970-02-18 on"):
        resolve_times(seconds, TimeConfig(), "ts")
    assert parse(seconds, TimeConfig(unit="s")) == ([120_700_800_000, 631_151_999_000], [])
    # the clocks of Berlin were one hour ahead of UTC
    day = pa.array(["29.10.1973"])
    assert parse(day, TimeConfig(format="%d.%m.%Y", zone="Europe/Berlin")) == ([120_697_200_000], [])


def test_the_earliest_time_is_later_than_all_seconds_that_are_read_as_milliseconds():
    seconds_of_2099 = 4_102_444_799
    times = pa.array([seconds_of_2099, 4_147_199_999, 4_147_200_000])
    assert parse(times, TimeConfig(unit="ms"))[1] == [IMPLAUSIBLE_TIME] * 2


def test_a_date_is_its_midnight_in_the_zone():
    day = pa.array([datetime.date(2024, 3, 1)])
    assert parse(day, TimeConfig()) == ([MS - 3 * 3_600_000], [])
    assert parse(day, TimeConfig(zone="Europe/Berlin")) == ([MS - 4 * 3_600_000], [])


def test_a_repeated_local_hour_is_the_first_and_a_skipped_one_the_next():
    # clocks in Berlin: 2024-10-27 03:00 becomes 02:00; 2024-03-31 02:00 becomes 03:00
    texts = pa.array(["2024-10-27T02:30:00", "2024-03-31T02:30:00"])
    (repeated, skipped), reasons = parse(texts, TimeConfig(unit="iso", zone="Europe/Berlin"))
    assert repeated == 1_729_989_000_000  # 00:30 UTC, still summer time
    assert skipped == 1_711_846_800_000  # 01:00 UTC, when summer time starts
    assert not reasons


def test_times_that_cannot_be_read_are_marked():
    texts = pa.array(["1709262000000", "yesterday", "", "-5", "1709262000", None])
    times, reasons = parse(texts, TimeConfig(unit="ms"))
    assert times[0] == MS
    assert reasons == [BAD_TIME, BAD_TIME, BAD_TIME, IMPLAUSIBLE_TIME, BAD_TIME]
    assert parse(pa.array(["2024-03-01", "31.12.2024"]), TimeConfig(unit="iso"))[1] == [BAD_TIME]
    assert parse(pa.array([None, datetime.datetime(1970, 1, 1)], pa.timestamp("s")), TimeConfig())[1] == [
        BAD_TIME,
        IMPLAUSIBLE_TIME,
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1709262000", "1709262001"], TimeConfig(unit="s")),
        (["881250949", "891717742"], TimeConfig(unit="s")),  # 1997 and 1998
        ([631_152_000_000], TimeConfig(unit="ms")),  # 1990-01-01
        ([MS], TimeConfig(unit="ms")),
        ([MS * 1000], TimeConfig(unit="us")),
        ([MS * 1_000_000], TimeConfig(unit="ns")),
        (["2024-03-01"], TimeConfig(unit="iso")),
        (["2019-10-01 00:00:00 UTC"], TimeConfig(unit="iso")),
        ([float(MS), float("nan")], TimeConfig(unit="ms")),
        ([decimal.Decimal(MS)], TimeConfig(unit="ms")),
        (["31.12.2024 20:15:00", "01.01.2025 08:00:00"], TimeConfig(format="%d.%m.%Y %H:%M:%S")),
        (["12/31/2024"], TimeConfig(format="%m/%d/%Y")),
        (["20240301"], TimeConfig(unit="iso")),
    ],
)
def test_the_unit_or_format_is_found_from_the_values(values, expected):
    assert guess_times(pa.array(values)) == [expected]
    resolved = resolve_times(pa.array(values), TimeConfig(zone="Europe/Berlin"), "ts")
    assert (resolved.unit, resolved.format, resolved.zone) == (expected.unit, expected.format, "Europe/Berlin")


def test_an_ambiguous_or_unknown_format_is_an_error_with_the_options():
    with pytest.raises(
        ValueError, match=r"`day` has times such as '01/02/2024', which fit several formats: .* or .*time.format"
    ):
        resolve_times(pa.array(["01/02/2024", "03/04/2024"]), TimeConfig(), "day")
    with pytest.raises(ValueError, match=r"`day` has values such as 'soon', which fit no known time format: ISO 8601"):
        resolve_times(pa.array(["soon"]), TimeConfig(), "day")


def test_a_given_unit_is_kept_whatever_the_values_are():
    given = TimeConfig(unit="ms")
    assert resolve_times(pa.array(["1709262000"]), given, "ts") is given


def test_times_in_another_unit_than_the_given_one_are_an_error_with_the_right_one():
    seconds = pa.array(["1709262000", "881250949"])
    with pytest.raises(
        ValueError,
        match=r"`ts` has times outside .* read as ms, such as '1709262000'; they fit s, so set time.unit to s",
    ):
        check_times(seconds, TimeConfig(unit="ms"), "ts", 0.5)
    check_times(seconds, TimeConfig(unit="ms"), "ts", 1)  # all rows may be invalid
    check_times(seconds, TimeConfig(unit="s"), "ts", 0)
    one_of_two = pa.array([MS, 1])
    check_times(one_of_two, TimeConfig(unit="ms"), "ts", 0.5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            TimeConfig(format="%d.%m.%Y"),
            r"`ts` has times that cannot be read as %d.%m.%Y, such as '2024-03-01 03:00'; they fit iso, so set "
            "time.unit to iso and remove time.format",
        ),
        (
            TimeConfig(unit="s"),
            "cannot be read as s, such as '2024-03-01 03:00'; they fit iso, so set time.unit to iso$",
        ),
    ],
)
def test_times_that_cannot_be_read_are_an_error_with_the_right_format(config, message):
    with pytest.raises(ValueError, match=message):
        check_times(pa.array(["2024-03-01 03:00", "2024-03-02 04:00"]), config, "ts", 0.01)


def test_times_in_an_unknown_format_are_an_error_with_an_example():
    with pytest.raises(ValueError, match="cannot be read as iso, such as 'yesterday'; correct \\[time\\]"):
        check_times(pa.array(["yesterday", "today"]), TimeConfig(unit="iso"), "ts", 0.01)
    # some of the rows can be read, so prepare counts the others and reports their lines
    check_times(pa.array(["yesterday", "2024-03-02"]), TimeConfig(unit="iso"), "ts", 0.01)


@pytest.mark.parametrize("years", [["1995", "2004"], [1995, 2004], ["1995.0", "2004.0"]])
def test_plain_years_are_no_times(years):
    assert guess_times(pa.array(years)) == []


@pytest.mark.parametrize("zone", ["Berlin", "", "UTC+1"])
def test_an_unknown_time_zone_is_refused(zone):
    with pytest.raises(ValueError, match="zone must be the name of a time zone, such as UTC"):
        TimeConfig(zone=zone)


def test_a_million_times_of_few_days_are_parsed_by_day():
    days = np.random.default_rng(0).integers(1, 29, 1_000_000)
    texts = pa.array([f"2024-02-{day:02d}" for day in range(1, 29)]).take(pa.array(days - 1))
    times, reasons = parse(texts, TimeConfig(unit="iso"))
    assert not reasons
    assert times[:3] == [1_706_745_600_000 + (int(day) - 1) * 86_400_000 for day in days[:3]]
