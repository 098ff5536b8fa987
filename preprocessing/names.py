"""Usual names of the columns of event logs and item tables, by the role of the column, such as the visitor."""

import re
from collections.abc import Iterable

USUAL_NAMES = {
    "visitor": (
        "visitorid|visitor|userid|user|customerid|customer|custid|clientid|client|userpseudoid|sessionid|session|"
        "cookie|accountid|account|memberid|householdid|household|kunde|kundennr|kundennummer|uid|email|customeremail|"
        "billingemail"
    ),
    "item": (
        "itemid|item|productid|product|articleid|article|sku|stockcode|aid|asin|movieid|bookid|upc|ean|artikel|"
        "artikelnr|artikelnummer|pid|iid|lineitemsku|variantsku|productsku|lineitemname"
    ),
    "time": (
        "timestamp|ts|eventtimestamp|eventtime|time|datetime|date|tdat|createdat|invoicedate|orderdate|purchasedate|"
        "eventdate|zeitpunkt|datum|zeit"
    ),
    "kind": "event|eventtype|eventname|action|type|behavior|behaviour|activity|aktion|ereignis|kind",
    "transaction": "transactionid|invoiceno|invoice|orderid|order|basketid|basket|receiptid",
    "title": "title|name|prodname|productname|itemname|producttitle|itemtitle|movietitle|booktitle|bezeichnung",
    "price": "price|unitprice|preis|variantprice|regularprice|itemprice|lineitemprice|cost",
    "availability": "available|availability|instock|isavailable|verfuegbar|lieferbar|published",
}
"""By role: the usual names, as `plain_name` returns them, separated by `|`, best first."""
_TYPE_SUFFIX = re.compile(r":(token|float)(_seq)?$")  # RecBole's, such as `user_id:token`


def plain_name(path: str) -> str:
    """Returns the last name of a path in small letters: `userid` for `events[].User_ID` and for `user_id:token`.

    An `id` is named like its object: `productid` for `product.id` and for `products[].id`.
    """
    *parents, name = (
        re.sub(r"[^a-z]", "", name.lower()) for name in re.split(r"\.|\[\]\.?", _TYPE_SUFFIX.sub("", path))
    )
    return parents[-1].removesuffix("s") + name if name == "id" and parents else name


def find_usual(role: str, paths: Iterable[str]) -> list[str]:
    """Returns the paths with a usual name for a role, such as `item`; the best name first."""
    names = USUAL_NAMES[role].split("|")
    return sorted((path for path in paths if plain_name(path) in names), key=lambda path: names.index(plain_name(path)))


def role_of(path: str) -> str | None:
    """Returns the role for which the name of a column is usual; None for other names."""
    return next((role for role in USUAL_NAMES if find_usual(role, [path])), None)
