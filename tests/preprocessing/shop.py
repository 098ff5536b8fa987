"""Writes the CSV files of a small shop, which the preprocessing tests prepare."""

from pathlib import Path

DAY_MS = 86_400_000
START_MS = 1_440_000_000_000  # 2015-08-19T16:00 UTC

HEADER = "timestamp,visitorid,event,itemid,transactionid"


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def event(day: float, visitor: str, item: str, kind: str = "view", transaction: str = "") -> str:
    return f"{START_MS + round(day * DAY_MS)},{visitor},{kind},{item},{transaction}"


def small_shop(directory: Path) -> dict[str, str]:
    """Writes a log of ten days: 32 events of four visitors, one event per visitor and day.

    Visitor d has events on the last two days only; item late-1 is first seen on day 8.
    """
    visitors = ("a", "b", "c", "d")
    events = [
        event(day + number / 10, visitor, "late-1" if visitor == "d" and day == 8 else f"item-{(day + number) % 5}")
        for day in range(10)
        for number, visitor in enumerate(visitors)
        if visitor != "d" or day >= 8
    ]
    properties = [
        f"{START_MS},item-0,categoryid,30",
        f"{START_MS},item-1,categoryid,20",
        f"{START_MS},item-0,790,n1000.000",
        f"{START_MS},item-1,790,n3000.000",
        f"{START_MS},item-0,available,1",
        f"{START_MS + 4 * DAY_MS},item-0,available,0",
        f"{START_MS + 9 * DAY_MS},item-0,available,1",  # later than the cut
        f"{START_MS},item-0,888,red n5.000 red",
        f"{START_MS},never-seen,categoryid,20",
        f'{START_MS},item-0,title,"Sneakers, blue canvas"',
    ]
    tree = ["10,", "20,10", "30,20"]
    return {
        "events": write_lines(directory / "events.csv", HEADER, *events),
        "item_properties": write_lines(directory / "properties.csv", "timestamp,itemid,property,value", *properties),
        "category_tree": write_lines(directory / "tree.csv", "categoryid,parentid", *tree),
    }


def write_events(path: Path, *lines: str) -> str:
    return write_lines(path, "timestamp,visitorid,event,itemid", *lines)


def plain_events(number: int) -> list[str]:
    return [event(n, f"v{n % 3}", f"i{n % 4}").removesuffix(",") for n in range(number)]
