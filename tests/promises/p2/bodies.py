"""What a careless sender sends about a recipient: bodies as each vendor has them, her name wherever it could stand.

Every body is a line for `schleuse feed`, shaped like those in tests/feeds. The recipient stands where she belongs, and
in all that a sender or a vendor may have put beside it: URLs, tags, metadata, headers, user agent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from tests.lock import iso
from tests.promises.p2.canaries import Canary

MAILING, LINK, BASE = "herbstbrief", "heldenbild", "https://x.example/produkt"
AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
Body = dict[str, Any]


def urls(who: Canary) -> list[str]:
    """Query, fragment, path, user info; in the clear, percent-encoded, base64 and hashed."""
    local = who.address.partition("@")[0]
    packed = base64.urlsafe_b64encode(who.address.encode()).decode()
    numbered = base64.b64encode(json.dumps({"rid": who.number}).encode()).decode()
    every = "".join(f"%{byte:02X}" for byte in who.number.encode())
    return [
        f"{BASE}?rid={who.number}&email={who.address}#{local}",
        f"{BASE}?e={quote(who.address, safe='')}&b={packed}&t={numbered}&n={every}",
        f"{BASE}?h={hashlib.md5(who.address.lower().encode()).hexdigest()}",
        f"https://x.example/{who.number}/{who.address}",
        f"https://x.example/abmelden/{quote(who.address, safe='')}",
        f"https://{local}:{who.number}@x.example/produkt",
    ]


def agent(who: Canary) -> str:
    """A user agent that says who it is of."""
    return f"{AGENT} ({who.number}; +mailto:{who.address})"


def hits(who: Canary, at_ms: int) -> Iterator[tuple[str, str | None, int]]:
    """An open, and a click on each of her URLs."""
    yield "open", None, at_ms
    for number, url in enumerate(urls(who)):
        yield "click", url, at_ms + 2000 * (number + 1)


def native(who: Canary, at_ms: int, number: int, url: str | None) -> Body:
    body = {
        "event_id": f"{who.number}-{number}",
        "kind": "click" if url else "open",
        "tenant": "native",
        "mailing": MAILING,
        "recipient": who.number if number == 3 else who.address,
        "occurred_at": at_ms,
        "user_agent": agent(who),
        "ip": "2001:db8::4711",
        "feed": f"feed of {who.number}",
        who.number: who.address,
    }
    return {**body, "url": url, "link": who.number} if url else body


def sendgrid(who: Canary, at_ms: int, number: int, url: str | None) -> Body:
    body = {
        "email": who.address,
        "timestamp": at_ms // 1000,
        "event": "click" if url else "open",
        "category": [who.number, who.address],
        "mailing": MAILING,
        "sg_event_id": f"{who.number}-{number}",
        "sg_message_id": f"{who.number}.filter0001",
        "smtp-id": f"<{who.address}>",
        "useragent": agent(who),
        "ip": "2001:db8::4711",
        "customer_no": who.number,
        who.number: {"address": who.address},
    }
    return {**body, "url": url, "url_offset": {"index": 0, "type": who.number}} if url else body


def mailgun(who: Canary, at_ms: int, number: int, url: str | None) -> Body:
    hit = {
        "id": f"{who.number}-{number}",
        "event": "clicked" if url else "opened",
        "timestamp": at_ms / 1000,
        "recipient": who.address,
        "tags": [who.number, who.address],
        "user-variables": {"mailing": MAILING, "customer": who.number, who.number: who.address},
        "message": {"headers": {"message-id": who.number, "to": who.address, "subject": f"Hallo {who.address}"}},
        "geolocation": {"country": "DE", "city": who.number},
        "ip": "2001:db8::4711",
        "client-info": {"user-agent": agent(who), "client-name": who.number},
    }
    return {"signature": {"token": who.number}, "event-data": {**hit, "url": url} if url else hit}


def postmark(who: Canary, at_ms: int, number: int, url: str | None) -> Body:
    body = {
        "RecordType": "Click" if url else "Open",
        "MessageID": f"{who.number}-{number}",
        "Recipient": who.address,
        "ReceivedAt": iso(at_ms),
        "Tag": who.number,
        "Metadata": {"mailing": MAILING, "customer": who.number, "email": who.address},
        "UserAgent": agent(who),
        "OS": {"Name": who.number},
        "Geo": {"IP": "2001:db8::4711", "City": who.number},
    }
    return {**body, "OriginalLink": url, "ClickLocation": who.number} if url else body


def ses(who: Canary, at_ms: int, number: int, url: str | None) -> Body:
    mail = {
        "messageId": who.number,
        "destination": [who.address],
        "headers": [{"name": "To", "value": f"{who.number} <{who.address}>"}],
        "commonHeaders": {"to": [who.address], "subject": f"Hallo {who.number}"},
        "tags": {"mailing": [MAILING], "customer": [who.number], "email": [who.address]},
    }
    hit = {"ipAddress": "2001:db8::4711", "timestamp": iso(at_ms), "userAgent": agent(who)}
    if url:
        hit |= {"link": url, "linkTags": {"link": [who.number], who.number: [who.address]}}  # type: ignore[dict-item]
    report = {"eventType": "Click" if url else "Open", "mail": mail, ("click" if url else "open"): hit}
    return {
        "Type": "Notification",
        "MessageId": f"{who.number}-{number}",
        "TopicArn": f"arn:aws:sns:eu-central-1:123456789012:{who.number}",
        "SubscribeURL": f"https://sns.example/?{who.address}",
        "Message": json.dumps(report),
    }


SHAPES: dict[str, Callable[[Canary, int, int, str | None], Body]] = {
    "native": native,
    "sendgrid": sendgrid,
    "mailgun": mailgun,
    "postmark": postmark,
    "ses": ses,
}


def good(who: Canary, at_ms: int) -> list[str]:
    """Lines that `schleuse feed` sends."""
    shape = SHAPES[who.feed]
    bodies = [shape(who, at, number, url) for number, (_, url, at) in enumerate(hits(who, at_ms))]
    return [json.dumps([body] if who.feed == "sendgrid" else body) for body in bodies]


def bad(who: Canary, at_ms: int) -> list[str]:
    """Lines that it refuses, each with her in the very place that is wrong."""
    shape = SHAPES[who.feed]
    line = json.dumps(shape(who, at_ms, 0, urls(who)[0]))

    def with_(old: str, new: str) -> str:
        changed = line.replace(json.dumps(old)[1:-1], new).replace(
            json.dumps(json.dumps(old))[1:-1], json.dumps(new)[1:-1]
        )
        assert changed != line, old
        return changed

    return [
        line[: len(line) // 2],
        f"{who.address}, {who.number}",
        json.dumps([who.address + who.number]),
        with_(MAILING, who.address),
        with_(MAILING, quote(who.address, safe="")),
        with_(who.address, f"{who.address} and {who.number}@@"),
        with_(iso(at_ms), who.number) if who.feed in ("postmark", "ses") else with_(str(at_ms // 1000), "17e99"),
        with_("lick", f"lick {who.number}"),
        f'{{"{who.address}": 1, "{who.address}": 2, {line[1:]}',
    ]


def withdrawal(who: Canary, at_ms: int) -> str:
    """SendGrid's unsubscribe."""
    body = {"email": who.address, "timestamp": at_ms // 1000, "event": "group_unsubscribe", "sg_event_id": who.number}
    return json.dumps([body])


def preference(who: Canary, at_ms: int, named: str | None = None) -> str:
    """Her choice, for our own format; the proof says whose it is, as proofs do."""
    name = named or who.address
    tenant = who.feed
    if who.mode == "off":
        return json.dumps(
            {"tenant": tenant, "recipient": name, "decided_at": at_ms, "purposes": "*", "mode": "off"}
            | {"proof": {"source": f"a call by {name}"}}
        )
    mode = "pseudonymous" if who.mode == "withdrawn" else who.mode
    proof = {
        "source": f"form of {who.number}",
        "text_version": "2026-05",
        "evidence": f"confirmed by {who.address} from 2001:db8::4711",
        "recorded_by": who.number,
    }
    purposes = {"engagement": {"open": mode, "click": mode}}
    return json.dumps({"tenant": tenant, "recipient": name, "decided_at": at_ms, "purposes": purposes, "proof": proof})


def declarations(who: Canary, tenant: str) -> list[str]:
    """Mailings that name somebody where a name is refused: an address in a name, an id, a link's id or its URL."""
    base: Body = {"tenant": tenant, "mailing": "m", "name": "n", "sent_at": "2026-11-16T07:00:00Z", "recipients": 3}
    encoded = quote(who.address, safe="")
    return [
        json.dumps({**base, "links": {}, **fields})
        for fields in (
            {"name": f"For {who.address}"},
            {"mailing": who.address},
            {"mailing": encoded},
            {"mailing": quote(encoded, safe="")},
            {"mailing": who.address.replace("@", "\uff20")},
            {"links": {who.address: BASE}},
            {"links": {encoded: BASE}},
            {"links": {"a": f"{BASE}?email={who.address}"}},
            {"links": {"a": f"{BASE}/{encoded}"}},
            {"links": {"a": f"{BASE}/{quote(encoded, safe='')}"}},
            {"links": {"a": f"https://{who.number}:x@x.example/"}},
        )
    ]
