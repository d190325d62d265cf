"""P2: whatever a debugger, an assertion or a careless f-string shows of our objects, it names nobody."""

from __future__ import annotations

import gc
from pathlib import Path

import orjson

from pseudonymizer.consent import Mode
from streams.chain import Kind
from streams.declarations import Declarations
from streams.decode import decode, read_event
from streams.errors import BadRow, Reason
from streams.events import EventsWork
from streams.feed.formats import FORMATS
from streams.feed.items import FeedOptions, Message
from streams.feed.records import record
from streams.messages import parse_change, parse_preference
from streams.plan import plan, states
from streams.rejections import Rejection, Stage, gather, seal_content
from streams.seen import Seen
from streams.state import StateIndex
from streams.transport import Chunk
from tests.claims import NOW, change, claim, event, make_keys, tenants
from tests.promises.p2 import bodies
from tests.promises.p2.canaries import FEEDS, MODES, Canary, Search

OURS = ("streams.", "pseudonymizer.", "aggregates.")


def _made(directory: Path, who: list[Canary]) -> list[object]:
    """Our objects, as they are while she is fed, decides, acts and is refused."""
    of = {**tenants(), **dict.fromkeys(FEEDS, tenants()["acme"])}
    made: list[object] = []
    for one in who:
        options = FeedOptions(None if one.feed == "native" else one.feed)
        for line in bodies.good(one, NOW - 1000) + bodies.bad(one, NOW - 1000):
            for item in FORMATS[one.feed](line.encode(), options):
                made.append(item)
                if isinstance(item, Message):
                    try:
                        made.append(record(item, of, NOW))
                        made.append(read_event(orjson.dumps(item.fields), NOW))
                    except BadRow as refusal:
                        made.append(refusal)
        if one.mode != "unknown":
            made.append(parse_preference(bodies.preference(one, NOW).encode(), of, NOW))

    keys, index, her = make_keys(directory), StateIndex(), who[-1]
    asked = {"engagement": {"open": Mode.PERSONAL, "click": Mode.PSEUDONYMOUS}, "advice": {"open": Mode.PSEUDONYMOUS}}
    changes = [change(1, her.address, asked, NOW - 9000), change(2, her.address, Mode.ANONYMOUS, NOW - 8000)]
    made += [parse_change(one.value) for one in changes]
    for number, one in enumerate(changes):
        planned = plan(claim(Kind.CHANGES, [one], number=number), [one], of, index, keys, {})  # type: ignore[list-item]
        for key, value in states(planned):
            index.put(key, value)
            made.append(index.state(key))
        made += [planned, *planned.confirmations]
    acts = [event(n, her.address, url=bodies.urls(her)[0], user_agent=bodies.agent(her)) for n in range(3)]
    work = EventsWork(0, 1, keys, index, Seen(), Declarations())
    made += [work, work.build(claim(Kind.EVENTS, acts, number=2), acts, of), decode([a.value for a in acts], NOW)]  # type: ignore[arg-type]
    sealed = seal_content(bytes(32), b"key", her.address.encode(), "t:0:1", bytes(12))
    refused = Rejection("t", 0, 1, NOW, Stage.EVENTS, Reason.NOT_JSON, None, None, 9, sealed, "2026-11-24")
    made += [refused, *gather([refused.encode()])[0].values(), index, keys, of]
    made.append(Chunk(type("TP", (), {"topic": "t", "partition": 0})(), list(acts)))  # type: ignore[arg-type]
    return made


def test_no_object_of_ours_shows_a_recipient(tmp_path: Path) -> None:
    """Not only those that are made here: every one of ours that is alive afterwards."""
    who = [Canary.of(feed, mode) for feed in FEEDS for mode in MODES]
    who.append(Canary.of("native", "personal"))  # whose choices and acts are carried out
    made = _made(tmp_path, who)
    alive = [one for one in [*made, *gc.get_objects()] if str(type(one).__module__).startswith(OURS)]
    kinds = {type(one).__name__ for one in alive}
    assert kinds >= {
        "Change",
        "Preference",
        "RecipientState",
        "Consent",
        "Salt",
        "ChangesPlan",
        "Confirmation",
        "Pairs",
    }
    assert kinds >= {"EventsBatch", "Event", "Decoded", "People", "Message", "Record", "Refused"}
    assert kinds >= {"BadRow", "Rejection", "Listed", "Chunk"}
    words = {name: text for one in who for name, text in one.words().items()}
    search = Search(words, (*FEEDS, "acme"))
    texts = {f"{n}: {type(one).__name__}": f"{one!r} {one!s}".encode() for n, one in enumerate(alive)}
    assert search.found(texts) == []
    assert search.found(
        {"they are in there": repr([vars(m) if hasattr(m, "__dict__") else _fields(m) for m in made]).encode()}
    )


def _fields(one: object) -> object:
    return {name: getattr(one, name, None) for name in getattr(type(one), "__slots__", ())}
