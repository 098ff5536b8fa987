"""No command keeps or repeats a credential of a URI."""

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import k8s.cli
import preprocessing.cli
import trainer.cli
from common.errors import ContractError
from common.uris import refuse_credentials, refuse_credentials_in_arguments
from contract.manifest import read_manifest
from tests.planted import SECRET
from trainer.runs.record import read_record

PLANTED = (
    f"http://host/events.csv?Signature={SECRET}&AWSAccessKeyId=a",
    f"https://host/events.csv?access_token={SECRET}",
    f"https://host/events.csv?{SECRET}",
    f"https://host/events.csv#{SECRET}",
    f"s3://key:{SECRET}@bucket/events.csv",
    f"s3://key:12/{SECRET}@bucket/events.csv",
    f"s3://{SECRET}@bucket/events.csv",
    f"gs://bucket/events.csv?api_key={SECRET}",
    f"gs://bucket/events.csv#password={SECRET}",
    f"simplecache::s3://key:{SECRET}@bucket/events.csv",
    f"s3://bucket/a::https://host/b?password={SECRET}",
    f"https://key::{SECRET}@host/a",
    f"https://host/a?::{SECRET}",
)
HARMLESS = (
    "s3://bucket/events_?.csv",
    "gs://bucket/a#b.csv",
    "http://localhost:9000/events.csv",
    "simplecache::s3://bucket/a",
    "zip://*.csv::simplecache::s3://bucket/events_?.zip",
    "file:///data/what?x=1",
    "/data/a?b=c#d",
)


@pytest.mark.parametrize("uri", PLANTED)
@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (preprocessing.cli.main, ("prepare", "--output", "out", "--events")),
        (preprocessing.cli.main, ("prepare", "--output", "out", "--events", "a.csv", "--set", "item_properties={}")),
        (preprocessing.cli.main, ("prepare", "--output", "out", "--events", "a.csv", "--temp_location={}")),
        (trainer.cli.main, ("train", "--preset", "mf", "--workdir", "run", "--data")),
        (trainer.cli.main, ("recommend", "--workdir", "run", "--output", "out", "--visitors")),
        (k8s.cli.main, ("prepare", "--dry-run", "--output", "gs://b/out", "--events")),
        (k8s.cli.main, ("prepare", "--dry-run", "--output", "gs://b/o", "--events", "gs://b/e", "--", "--baseline={}")),
    ],
)
def test_a_command_refuses_a_uri_with_a_secret_and_does_not_repeat_it(main, arguments, uri, capsys):
    planted = [argument.replace("{}", uri) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        main(planted if planted != list(arguments) else [*arguments, uri])
    assert stop.value.code == 2
    printed = "".join(capsys.readouterr())
    assert "credential" in printed
    assert SECRET not in printed


@pytest.mark.parametrize("uri", PLANTED)
def test_a_path_with_a_secret_is_not_repeated_as_damaged(uri):
    for read in (read_manifest, read_record):
        with pytest.raises(ValueError, match="may contain a credential") as caught:
            read(uri)
        assert not isinstance(caught.value, ContractError)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("uri", HARMLESS)
def test_globs_ports_and_local_names_are_not_credentials(uri):
    refuse_credentials(uri)


@settings(deadline=None)
@given(st.sampled_from("?#"), st.text(st.characters(categories=("L", "N"), max_codepoint=126), min_size=1))
def test_any_parameter_is_refused_whatever_its_name(mark, name):
    for uri in (f"https://host/a{mark}{name}={SECRET}", f"s3://bucket/a{mark}{name}={SECRET}"):
        with pytest.raises(ValueError, match="may contain a credential"):
            refuse_credentials(uri)


_PLACES = (
    "s3://key:{}@bucket/a",
    "https://host/a?{}",
    "https://host/a#{}",
    "gs://bucket/a?x={}",
    "https://key:{}@host/a",
)
# \u2100 is normalised to a/c
_CHARACTERS = st.text(st.sampled_from("[]@:?#=&% aé\u2100\n"), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_PLACES), _CHARACTERS, _CHARACTERS)
def test_no_secret_survives_whatever_characters_surround_it(place, before, after):
    uri = place.format(f"{before}{SECRET}{after}")
    for refuse in (refuse_credentials, lambda uri: refuse_credentials_in_arguments(argparse.Namespace(data=uri))):
        with pytest.raises(ValueError, match=r"a \w+:// URI") as caught:
            refuse(uri)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("uri", [f"postgresql://tuner:{SECRET}\u2100@host/trials", f"postgresql://[{SECRET}/trials"])
def test_the_url_of_a_database_that_cannot_be_parsed_is_not_repeated(uri):
    with pytest.raises(ValueError, match="a postgresql:// URI has an invalid host") as caught:
        refuse_credentials_in_arguments(argparse.Namespace(storage=uri))
    assert SECRET not in str(caught.value)


def test_only_the_url_of_a_database_may_name_a_user():
    refuse_credentials_in_arguments(argparse.Namespace(storage="postgresql://tuner@host:5432/trials"))
    for url in (f"postgresql://tuner:{SECRET}@host/trials", f"postgresql://host/trials?password={SECRET}"):
        with pytest.raises(ValueError, match=r"storage: a .* URL has a password") as caught:
            refuse_credentials_in_arguments(argparse.Namespace(storage=url))
        assert SECRET not in str(caught.value)
