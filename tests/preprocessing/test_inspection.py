"""`inspect` and shop.toml: `prepare` accepts the proposed settings for every usual format."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.settings import from_json
from preprocessing import cli
from preprocessing.config import EventColumns, FormatConfig, ItemTableConfig, PrepareConfig, TimeConfig
from preprocessing.events import parse_events
from preprocessing.inputs import list_inputs
from preprocessing.inspection import Inspection, describe, inspect
from preprocessing.kinds import KindConfig
from preprocessing.names import plain_name
from preprocessing.shop import format_shop, read_shop
from preprocessing.sources.source import read_batches

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats"
OWN_WORDS = {
    "ga4_events.jsonl.gz": {"view": "view_item", "addtocart": "add_to_cart", "transaction": "purchase"},
    "otto.jsonl": {"view": "clicks", "addtocart": "carts", "transaction": "orders"},
    "shop_de.csv": {"view": "Ansicht", "addtocart": "Warenkorb", "transaction": "Kauf"},
    "shop_de_utf16.csv": {"view": "Ansicht", "addtocart": "Warenkorb", "transaction": "Kauf"},
}
"""The word of each log for each event kind in `expected.json`."""
needs_formats = pytest.mark.skipif(not FORMATS.exists(), reason="needs ../shared/data/formats next to the checkout")


def count_events(config: PrepareConfig) -> dict[str, object]:
    inputs = list_inputs(config)
    events = pa.concat_tables(parse_events(batch, inputs.mapping).table for batch in read_batches(inputs.events.parts))
    kinds = Counter(inputs.mapping.kinds.names[code] for code in events["event"].to_pylist())
    return {
        "events": len(events),
        "visitors": len(events["visitor"].unique()),
        "items": len(events["item"].unique()),
        "kinds": dict(kinds),
    }


@needs_formats
@pytest.mark.parametrize(
    "name",
    [
        "online_retail.parquet",
        "clicks.dat",
        "ratings.csv",
        "ga4_events.jsonl.gz",
        "transactions_train.csv",
        "otto.jsonl",
        "shop_de.csv",
        "shop_de_utf16.csv",
    ],
)
def test_the_proposal_for_a_usual_format_reads_all_its_events(name, tmp_path):
    expected = json.loads((FORMATS / "expected.json").read_text())[name]
    found = inspect(str(FORMATS / name))
    (tmp_path / "shop.toml").write_text(format_shop(found.config))
    config = from_json(PrepareConfig, read_shop(str(tmp_path / "shop.toml")))
    assert config == found.config
    counts = count_events(config)
    if expected["kinds"] is None:  # the file has no kinds: all are views
        expected["kinds"] = {"view": expected["events"]}
    elif name in OWN_WORDS:
        expected["kinds"] = {OWN_WORDS[name][kind]: count for kind, count in expected["kinds"].items()}
    assert counts == {key: expected[key] for key in counts}


@needs_formats
def test_a_file_without_times_is_an_item_table():
    found = inspect(str(FORMATS / "articles.csv"))
    assert found.config.item_table.id == "article_id"
    assert found.config.item_table.title == "prod_name"
    assert found.config.item_table.category == ("product_group_name", "product_type_name")
    assert found.config.item_table.attributes == ("colour_group_name", "department_name", "detail_desc")
    assert "[item_table]" in describe(found)


@needs_formats
def test_a_shop_keeps_its_own_kinds_in_the_order_of_a_usual_funnel():
    found = inspect(str(FORMATS / "own_kinds.tsv"))
    # the words of no usual step come last: 38 remove_from_cart, 33 search
    order = ("View", "wishlist", "cart", "purchase", "remove_from_cart", "search")
    assert found.config.kinds == KindConfig(names=order)
    expected = json.loads((FORMATS / "expected.json").read_text())["own_kinds.tsv"]
    counts = count_events(found.config)
    assert counts == {key: expected[key] for key in counts}
    assert any("the order of the event kinds is a guess: View, wishlist" in warning for warning in found.warnings)


def inspect_kinds(path: Path, rows: list[tuple[str, str]]) -> Inspection:
    """Inspects a log with the given event kinds and items."""
    lines = [f"{1_709_262_000_000 + n},v,{kind},{item}\n" for n, (kind, item) in enumerate(rows)]
    path.write_text("timestamp,visitorid,event,itemid\n" + "".join(lines))
    return inspect(str(path))


def test_kinds_without_items_are_dropped_and_reported(tmp_path):
    # half of the page views have an item, a third of the logins
    rows = [("page", "i"), ("page", ""), ("login", "i"), ("login", ""), ("login", ""), ("buy", "i"), ("", "i")]
    found = inspect_kinds(tmp_path / "events.csv", rows)
    assert found.config.kinds == KindConfig(names=("buy", "page"), dropped=("", "login"))
    assert any("dropped event kinds: (empty), login;" in warning for warning in found.warnings)


def test_kinds_of_the_same_step_are_ordered_by_frequency(tmp_path):
    rows = [("order", "i"), ("buy", "i"), ("1", "i"), ("2", "i"), ("2", "i"), ("buy", "i"), ("fav", "i")]
    assert inspect_kinds(tmp_path / "events.csv", rows).config.kinds.names == ("fav", "buy", "order", "2", "1")


def test_retailrockets_words_are_the_default_kinds(tmp_path):
    rows = [("transaction", "i"), ("view", "i"), ("ping", "")]
    assert inspect_kinds(tmp_path / "events.csv", rows).config.kinds == KindConfig(dropped=("ping",))


def test_kinds_with_usual_words_are_proposed_if_there_are_too_many(tmp_path):
    rows = [(f"kind-{n}", "i") for n in range(31)] + [("view", "i"), ("sale", "i")]
    found = inspect_kinds(tmp_path / "events.csv", rows).config.kinds
    assert (found.names, len(found.dropped)) == (("view", "sale"), 31)
    assert len(inspect_kinds(tmp_path / "events.csv", rows[1:]).config.kinds.names) == 32
    unusual = inspect_kinds(tmp_path / "events.csv", [(f"kind-{n}", "i") for n in range(33)])
    assert unusual.config.kinds == KindConfig()
    assert "rows of the sample that would be rejected (unknown event kind): 33" in describe(unusual)


def test_names_with_a_type_are_recognised_like_the_plain_names(tmp_path):
    log = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
    )
    (tmp_path / "shop.inter").write_text(log)
    found = inspect(str(tmp_path / "shop.inter"))
    columns = found.config.columns
    assert (columns.visitor, columns.item, columns.time) == ("user_id:token", "item_id:token", "timestamp:float")
    assert (found.config.time, found.rejected) == (TimeConfig(unit="s"), 0)
    assert any('write weight = "rating:float" in [columns]' in warning for warning in found.warnings)


def test_an_item_table_with_years_of_release_is_no_log(tmp_path):
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    (tmp_path / "shop.item").write_text(f"{header}1\tToy Story\t1995\tAnimation Comedy\n2\tGoldenEye\t1995\tAction\n")
    found = inspect(str(tmp_path / "shop.item"))
    assert found.is_item_table
    assert (found.config.item_table.id, found.config.item_table.title) == ("item_id:token", "movie_title:token_seq")
    assert found.config.item_table.attributes == ("release_year:token", "class:token_seq")


@pytest.mark.parametrize(
    "rows",
    [
        "article_id,name\n710778015,Strap top\n759871002,Shirt\n",  # as seconds, 1992 and 1994
        "article,founded\n7,1881-02-03\n8,1952-12-31\n",  # before the earliest time of an event
    ],
)
def test_ids_and_dates_that_no_event_can_have_are_no_times(rows, tmp_path):
    (tmp_path / "items.csv").write_text(rows)
    assert inspect(str(tmp_path / "items.csv")).is_item_table


def test_a_log_without_times_is_reported(tmp_path):
    (tmp_path / "events.csv").write_text("user,item,rating\nu,7,3\nu,8,4\n")
    text = describe(inspect(str(tmp_path / "events.csv")))
    assert "warning: the columns user, item, rating look like an event log without times" in text
    (tmp_path / "items.csv").write_text("item,name\n7,Milk\n")
    assert "warning" not in describe(inspect(str(tmp_path / "items.csv")))


def test_possible_problems_are_reported(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,sku,when\nu1,007,2999-01-01\n,008,2099-01-01\nu2,009,2099-01-01\n")
    found = inspect(str(path))
    text = describe(found)
    for warning in (
        "1 of 3 visitor ids in `user` are missing",
        "item ids in `sku` have leading zeros",
        "some times are in the future, up to 2099-01-01",
        "rows of the sample that would be rejected (time outside 1970-02-18 to 2100): 1",
        "no column of event kinds was found, so all events are 'view'",
    ):
        assert warning in text
    assert 'where = ["user is not null"]' in text


def test_refunds_are_dropped_by_the_proposal_also_in_a_column_with_a_longer_name(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("customer,sku,created at,Lineitem quantity\nu1,a,2024-01-01,2\nu1,a,2024-01-02,-2\n")
    assert 'where = ["Lineitem quantity > 0"]' in describe(inspect(str(path)))


def test_the_columns_of_a_shop_system_have_their_roles(tmp_path):
    orders, products = tmp_path / "orders.csv", tmp_path / "products.csv"
    orders.write_text(
        "Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
        "#1,ann@example.com,2024-01-01 10:00:00 +0100,1,Blue shirt,20.0,SH-1\n"
    )
    columns = inspect(str(orders)).config.columns
    assert (columns.visitor, columns.item, columns.time) == ("Email", "Lineitem sku", "Created at")
    assert columns.kind == "'transaction'"
    products.write_text(
        "Handle,Title,Type,Published,Variant SKU,Variant Price\n"
        "blue-shirt,Blue shirt,Shirts,TRUE,SH-1,20.00\nred-hat,Red hat,Hats,FALSE,HA-2,5.00\n"
    )
    table = inspect(str(products)).config.item_table
    assert (table.id, table.title, table.category) == ("Variant SKU", "Title", ("Type",))
    assert (table.price, table.availability, table.attributes) == ("Variant Price", "Published", ("Handle",))


def test_columns_without_a_role_are_listed_with_their_types_and_examples(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"user_id": 1, "product": "a", "ts": 1709262000, "price": 2.5, "tags": ["x", "y"]}\n')
    columns = {column.path: (column.type, column.examples) for column in inspect(str(path)).columns}
    assert columns == {
        "user_id": ("whole number", ("1",)),
        "product": ("text", ("a",)),
        "ts": ("whole number", ("1709262000",)),
        "price": ("number", ("2.5",)),
        "tags[]": ("text", ("x", "y")),
    }


def test_a_shop_file_has_the_settings_that_it_was_written_from(tmp_path):
    config = PrepareConfig(
        events=str(tmp_path / "events*.csv"),
        events_format=FormatConfig(separator=";", encoding="cp1252", columns=("a", "b")),
        columns=EventColumns(visitor="Kunden Nr", item='"quoted"', time="Zeit", kind="Ä", transaction="Beleg"),
        where=("Menge > 0",),
        time=TimeConfig(format="%d.%m.%Y", zone="Europe/Berlin"),
        kinds=KindConfig(
            names=("view", 'say "x"', "Käufe"),
            weights=(0.0, 1.0, 2.5),
            words=("a = b=view", "Kauf=Käufe"),
            dropped=("Suche",),
        ),
        item_table=ItemTableConfig(
            files=str(tmp_path / "items.csv"), format=FormatConfig(separator="|"), category=("a", "b"), max_words=9
        ),
    )
    (tmp_path / "shop.toml").write_text(format_shop(config))
    assert from_json(PrepareConfig, read_shop(str(tmp_path / "shop.toml"))) == config


def test_paths_of_a_shop_file_start_at_its_directory(tmp_path):
    (tmp_path / "shop.toml").write_text('events = "logs/*.csv"\ncategory_tree = "s3://bucket/tree.csv"\n')
    values = read_shop(str(tmp_path / "shop.toml"))
    assert values == {"events": f"{tmp_path}/logs/*.csv", "category_tree": "s3://bucket/tree.csv"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"shop.toml does not exist; `cartwheel inspect FILES --write"),
        ("events = ", "is not valid TOML"),
        ('event = "a.csv"', "give the event log: --events GLOB, or --shop shop.toml"),
        (
            'events = "a.csv"\n[column]\nuser = "x"',
            "unknown keys: column; correct or remove them; the known keys are events, ",
        ),
        (
            'events = "a.csv"\nvisitor = "u"\nitem = "i"\ntime = "t"\nkind = "k"',
            "visitor, item, time, kind must be in the section [columns]; write a line [columns] above visitor",
        ),
        (
            'events = "a.csv"\n[columns]\nuser = "x"',
            "unknown keys: columns.user; correct or remove them; the known keys are columns.visitor, columns.item",
        ),
        (
            'events = "a.csv"\n[time]\nunit = "minutes"',
            "time.unit must be one of auto, s, ms, us, ns, iso, got minutes",
        ),
        (
            'events = "a.csv"\n[time]\nzone = "Berlin"',
            "time.zone must be the name of a time zone, such as UTC or Europe/Berlin",
        ),
        ('events = "a.csv"\n[kinds.words]\nKauf = "sale"', "must be WORD=KIND"),
        ('events = "a.csv"\nkinds = "x"', "must have a section [kinds], got kinds = 'x'"),
        ('events = "a.csv"\nkinds.names = "x"', 'names must be a list, got "x"; write names = ["x"]'),
        ('events = "a.csv"\nkinds.names = ["a", "a"]', "kinds.names must be distinct, got 'a' twice"),
        ('events = "a.csv"\ncolumns = "x"', "must have a section [columns], got columns = 'x'"),
        ('events = "a.csv"\nwhere = "q > 0"', 'where must be a list, got "q > 0"; write where = ["q > 0"]'),
    ],
)
def test_a_wrong_shop_file_is_an_error_that_names_what_is_known(content, message, tmp_path, capsys):
    path = tmp_path / "shop.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["prepare", "--shop", str(path), "--output", str(tmp_path / "dataset")])
    assert exit_.value.code == 2
    assert message.replace("\\", "") in capsys.readouterr().err.replace("\n", " ")


def test_columns_that_are_not_text_do_not_stop_the_inspection(tmp_path):
    table = pa.table({"time": [1_709_262_000_000], "user": ["u"], "item": ["i"], "picture": [b"\xff"]})
    pq.write_table(table, tmp_path / "events.parquet")
    found = inspect(str(tmp_path / "events.parquet"))
    assert [column.type for column in found.columns] == ["whole number", "text", "text", "binary"]
    assert found.events[0]["item"] == "i"


def test_lists_and_bytes_are_no_attributes_of_an_item_table(tmp_path):
    table = pa.table({"item": [3], "category": [["a"]], "tags": [["x"]], "colour": ["red"], "picture": [b"\xff"]})
    pq.write_table(table, tmp_path / "items.parquet")
    found = inspect(str(tmp_path / "items.parquet")).config.item_table
    assert (found.id, found.category, found.attributes) == ("item", (), ("colour",))


def test_the_category_path_starts_with_the_column_of_the_fewest_values(tmp_path):
    columns = {
        "product_id": [1, 2, 3, 4],
        "product_type": ["APPLES", "PEARS", "BREAD", "MILK"],
        "department": ["FOOD"] * 4,
        "product_category": ["FRUIT", "FRUIT", "BAKERY", "DAIRY"],
    }
    pq.write_table(pa.table(columns), tmp_path / "products.parquet")
    found = inspect(str(tmp_path / "products.parquet")).config.item_table
    assert (found.id, found.category) == ("product_id", ("department", "product_category", "product_type"))


def test_flags_win_over_the_shop_file(tmp_path):
    (tmp_path / "shop.toml").write_text(
        'events = "a.csv"\nmax_events_per_day = 5\n[columns]\nvisitor = "u"\nitem = "i"\n'
        '[kinds]\nnames = ["a", "b", "c"]\nweights = [1, 0, 5]\n'
    )
    parser = cli.build_parser()
    flags = ["--map", "item=sku", "--where", "q > 0", "--kinds", "view,like,order"]
    given = parser.parse_args(["prepare", "--shop", str(tmp_path / "shop.toml"), *flags, "--output", "x"])
    config = cli._prepare_config(given)
    assert config.columns == replace(EventColumns(), visitor="u", item="sku")
    assert config.where == ("q > 0",)
    assert config.kinds == KindConfig(names=("view", "like", "order"), weights=(1.0, 0.0, 5.0))
    assert config.max_events_per_day == 5


def test_an_unknown_name_of_a_mapping_is_an_error(capsys):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--events", "a.csv", "--map", "user=x", "--output", "dataset"])
    assert (
        "--map must have the form NAME=COLUMN with one of the names visitor, item, time, kind, transaction"
        in capsys.readouterr().err
    )


def test_the_written_path_starts_at_the_shop_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "shop").mkdir()
    (tmp_path / "logs" / "a.csv").write_text("when,who,what,sku\n2024-03-01,v,basket,i\n2024-03-01,v,order,i\n")
    assert cli.main(["inspect", "logs/*.csv", "--write", "shop/shop.toml"]) == 0
    values = read_shop("shop/shop.toml")
    assert values["events"] == "shop/../logs/*.csv"
    assert values["columns"]["kind"] == "what", "by its values, as its name says nothing"
    assert count_events(from_json(PrepareConfig, values))["kinds"] == {"basket": 1, "order": 1}


def test_inspect_writes_the_proposal_once(tmp_path, capsys):
    (tmp_path / "events.csv").write_text("timestamp,visitorid,event,itemid\n1709262000000,v,view,i\n")
    shop = tmp_path / "shop.toml"
    command = ["inspect", str(tmp_path / "events.csv"), "--write", str(shop)]
    assert cli.main(command) == 0
    assert f"cartwheel prepare --shop {shop} --output dataset" in capsys.readouterr().out
    assert 'visitor = "visitorid"' in shop.read_text()
    assert cli.main(command) == 1


def write_clicks(path: Path, num_rows: int) -> str:
    """Writes JSON Lines of 5 visitors and 7 products, each with its own event id, and times with a zone."""
    rows = [
        {
            "event": {"id": f"e{row}", "name": "view"},
            "at": f"2024-03-01T10:{row % 60:02d}:00+01:00",
            "user": {"id": f"u{row % 5}"},
            "product": {"id": f"p{row % 7}"},
        }
        for row in range(num_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_an_id_is_named_like_its_object(tmp_path):
    found = inspect(write_clicks(tmp_path / "clicks.jsonl", 60))
    assert found.config.columns == EventColumns(visitor="user.id", item="product.id", time="at", kind="event.name")
    assert not found.warnings  # in particular none of the time zone, which every time names


def test_the_id_of_the_event_is_neither_visitor_nor_item(tmp_path):
    rows = "".join(f"k{row},guest{row % 5},2024-03-01 10:{row % 60:02d},thing{row % 7}\n" for row in range(60))
    (tmp_path / "log.csv").write_text(f"key,who,when,what\n{rows}")
    columns = inspect(str(tmp_path / "log.csv")).config.columns
    assert (columns.visitor, columns.item) == ("who", "what")


def test_an_item_with_its_own_id_in_every_event_is_reported(tmp_path):
    rows = "".join(f"u{row % 5},{row},2024-03-01 10:{row % 60:02d}\n" for row in range(60))
    (tmp_path / "log.csv").write_text(f"user_id,item,time\n{rows}")
    warnings = inspect(str(tmp_path / "log.csv")).warnings
    assert any("nearly every event has its own item id in `item`" in warning for warning in warnings)
    assert any("times without a zone are read as UTC" in warning for warning in warnings)
    assert not any("visitor id" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("path", "name"),
    [("id", "id"), ("product.id", "productid"), ("products[].id", "productid"), ("events[].User_ID", "userid")],
)
def test_plain_names(path, name):
    assert plain_name(path) == name


def test_a_wrong_separator_is_an_error(tmp_path):
    (tmp_path / "log.csv").write_text("user;item;time\nu1;p1;2024-03-01\n")
    with pytest.raises(ValueError, match=r'only column is user;item;time, .* set --separator to ";", or remove'):
        inspect(str(tmp_path / "log.csv"), FormatConfig(separator=","))
