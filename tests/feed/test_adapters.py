"""Adapters pick what is on their list and survive everything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import BadRow, Reason
from streams.feed.formats import FORMATS
from streams.feed.items import EVENTS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.feed.native import FIELDS
from streams.feed.records import record
from tests.feed.test_truth import FEEDS, NOW_MS, TENANTS, VENDORS, Tenant

CANARY = "canary@geheim.example"
TENANTS_TOO = TENANTS | {"acme": Tenant(), "Acme-lower": Tenant(lower_local=True)}
ALLOWED = {
    "sendgrid": "email timestamp event category mailing sg_event_id sg_machine_open useragent ip url",
    "mailgun": "event-data.id event-data.event event-data.timestamp event-data.recipient event-data.ip event-data.url "
    "event-data.tags event-data.user-variables.mailing event-data.client-info.user-agent event-data.client-info.bot",
    "postmark": "RecordType MessageID Recipient ReceivedAt ChangedAt Tag Metadata.mailing UserAgent Geo.IP "
    "OriginalLink SuppressSending SuppressionReason",
    "ses": "Type MessageId Message.eventType Message.mail.destination Message.mail.tags.mailing "
    "Message.open.ipAddress Message.open.timestamp Message.open.userAgent Message.click.ipAddress Message.click.link "
    "Message.click.timestamp Message.click.userAgent Message.click.linkTags",
}


def load(vendor: str) -> list[Any]:
    """The hits of a sample feed as values, SNS's inner text unpacked."""
    found: list[Any] = []
    for line in (FEEDS / f"{vendor}.ndjson").read_text().splitlines():
        body = json.loads(line)
        found += body if isinstance(body, list) else [body]
    for hit in found if vendor == "ses" else []:
        hit["Message"] = json.loads(hit["Message"])
    return found


def pack(vendor: str, hit: Any) -> bytes:
    if vendor == "ses" and isinstance(hit, dict) and not isinstance(hit.get("Message"), str | None):
        hit = hit | {"Message": json.dumps(hit["Message"])}
    return json.dumps([hit] if vendor == "sendgrid" else hit).encode()


def overgrown(value: Any, allowed: set[str], path: str = "") -> Any:
    """The same hit with every value off the list replaced, and a strange name added to every object."""
    if path in allowed:
        return value
    if isinstance(value, dict):
        inside = {name: overgrown(inner, allowed, f"{path}.{name}".strip(".")) for name, inner in value.items()}
        return inside | {"customer_email": CANARY, CANARY: {"nested": [CANARY]}}
    return [CANARY] if isinstance(value, list) else CANARY


@pytest.mark.parametrize("withdraw", [None, "anonymous"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_not_on_the_list_goes_nowhere(vendor: str, withdraw: Any) -> None:
    options = FeedOptions(vendor, withdraw=withdraw)
    allowed = set(ALLOWED[vendor].split())
    kinds = set()
    for hit in load(vendor):
        plain = FORMATS[vendor](pack(vendor, hit), options)
        changed = FORMATS[vendor](pack(vendor, overgrown(hit, allowed)), options)
        assert [shown(item) for item in changed] == [shown(item) for item in plain]
        assert CANARY not in str([shown(item) for item in changed])
        kinds.add(type(plain[0]))
    assert Message in kinds


def shown(item: Item) -> Any:
    match item:
        case Message(topic, fields):
            return topic, fields
        case Ignored(what):
            return what
        case Refused(why):
            return why.reason, why.field, why.expected, str(why)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["", CANARY, "open", "click", "off", "*", "\0", "acme", 1e300, 10**30, -1, True, [], {}, [[]]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVENT = {
    "event_id": "1",
    "kind": "click",
    "tenant": "acme",
    "mailing": "m",
    "recipient": "erika@example.com",
    "occurred_at": NOW_MS,
    "link": "hero",
    "url": "https://x.example/",
    "user_agent": "x",
    "ip": "203.0.113.7",
    "actor": "human",
    "feed": "own",
}
PREFERENCE = {
    "tenant": "acme",
    "recipient": "erika@example.com",
    "decided_at": "2026-11-23T10:00:00Z",
    "purposes": {"engagement": {"open": "personal", "click": "off"}},
    "proof": {"source": "form", "text_version": "1", "evidence": "mail"},
}
SES_SUBSCRIPTION = {
    "Type": "Notification",
    "MessageId": "m",
    "Message": {
        "eventType": "Subscription",
        "mail": {"destination": ["erika@example.com"]},
        "subscription": {
            "timestamp": "2026-11-20T10:00:00Z",
            "newTopicPreferences": {
                "unsubscribeAll": False,
                "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptOut"}],
            },
            "oldTopicPreferences": {
                "unsubscribeAll": False,
                "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptIn"}],
            },
        },
    },
}
MAILGUN_UNSUBSCRIBED = {
    "event-data": {"event": "unsubscribed", "timestamp": 1_795_000_000.5, "recipient": "erika@example.com"}
}
SEEDS: list[tuple[str, Any]] = [
    *((vendor, hit) for vendor in VENDORS for hit in load(vendor)[:40]),
    ("sendgrid", next(hit for hit in load("sendgrid") if hit["event"] == "group_unsubscribe")),
    ("postmark", next(hit for hit in load("postmark") if hit["RecordType"] == "SubscriptionChange")),
    ("mailgun", MAILGUN_UNSUBSCRIBED),
    ("ses", SES_SUBSCRIPTION),
    ("native", EVENT),
    ("native", PREFERENCE),
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside and every key of it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A body of a vendor with a few of its values replaced by anything, or removed."""
    vendor, seed = draw(st.sampled_from(SEEDS))
    hit = copy.deepcopy(seed)
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(list(places(hit))))
        if isinstance(container, dict) and draw(st.booleans()):
            del container[key]
        else:
            container[key] = draw(JSON)
        if not list(places(hit)):
            break
    return vendor, pack(vendor, hit)


def check_all(form: str, body: bytes) -> None:
    for withdraw in (None, "off"):
        for topic in FIELDS if form == "native" else (EVENTS,):
            tenant = None if form == "native" else form
            items = FORMATS[form](body, FeedOptions(tenant, withdraw=withdraw, topic=topic))
            assert items
            for item in items:
                if isinstance(item, Message):
                    assert set(item.fields) <= set(FIELDS[item.topic])
                    try:
                        sent = record(item, TENANTS_TOO, NOW_MS)
                    except BadRow:
                        continue
                    assert json.loads(sent.value) == item.fields
                    assert sent.key.startswith(f"{item.fields['tenant']}\x1f".encode())


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_damaged_bodies_are_refused_or_right_but_never_raise(case: tuple[str, bytes]) -> None:
    check_all(*case)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_at_all_make_an_adapter_raise(form: str, body: bytes) -> None:
    check_all(form, body)


def only(form: str, body: bytes, **options: Any) -> Item:
    (item,) = FORMATS[form](body, FeedOptions(None if form == "native" else form, **options))
    return item


def refusal(form: str, body: bytes, **options: Any) -> tuple[Reason, str | None]:
    item = only(form, body, **options)
    if isinstance(item, Message):
        with pytest.raises(BadRow) as caught:
            record(item, TENANTS_TOO, NOW_MS)
        return caught.value.reason, caught.value.field
    assert isinstance(item, Refused)
    return item.why.reason, item.why.field


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"kind": "open", "ev', Reason.NOT_JSON),
        (b"\xff\xfe", Reason.NOT_JSON),
        (b'{"kind": NaN}', Reason.NOT_JSON),
        (b'{"kind": "\\ud800"}', Reason.NOT_JSON),
        (b'{"kind": ' + b"9" * 5_000 + b"}", Reason.NOT_JSON),
        (b"[" * 100_000, Reason.TOO_DEEP),
        (b'{"kind": "' + b"x" * 10_000_000 + b'"}', Reason.TOO_LARGE),
        (b'{"a": 1, "a": 1}', Reason.DUPLICATE_FIELD),
        (b"4711", Reason.WRONG_TYPE),
    ],
)
def test_no_format_takes_broken_json(form: str, body: bytes, reason: Reason) -> None:
    assert refusal(form, body)[0] == reason


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_body_of_another_vendor_is_refused_for_the_kind_it_lacks(form: str, vendor: str) -> None:
    if form == vendor:
        return
    for line in (FEEDS / f"{vendor}.ndjson").read_bytes().splitlines()[:3]:
        for item in FORMATS[form](line, FeedOptions(None)):
            if isinstance(item, Message):  # our own format is judged by the record
                with pytest.raises(BadRow) as caught:
                    record(item, TENANTS_TOO, NOW_MS)
                assert caught.value.reason == Reason.MISSING_FIELD
            else:
                assert isinstance(item, Refused)
                assert item.why.reason == (Reason.WRONG_TYPE if line.startswith(b"[") else Reason.MISSING_FIELD)


def test_a_bad_element_costs_only_itself() -> None:
    first, second = load("sendgrid")[:2]
    items = FORMATS["sendgrid"](json.dumps([first, 4711, {}, second]).encode(), FeedOptions("sendgrid"))
    assert [type(item) for item in items] == [Message, Refused, Refused, Message]
    assert only("sendgrid", b"[]") == Ignored("empty")
    assert isinstance(only("sendgrid", json.dumps(first).encode()), Message)


def test_twins_are_refused_where_they_are_looked_at_and_only_there() -> None:
    def body(inside: str) -> bytes:
        return f'{{"event-data": {inside}}}'.encode()

    whole = json.dumps(load("mailgun")[0]["event-data"])[:-1]
    assert isinstance(only("mailgun", body(whole + "}")), Message)
    assert isinstance(only("mailgun", body(whole + ', "extra": {"a": 1, "a": 2}}')), Message)
    assert refusal("mailgun", body(whole + ', "recipient": "x"}')) == (Reason.DUPLICATE_FIELD, None)
    assert refusal("mailgun", body(whole + ', "client-info": {}}')) == (Reason.DUPLICATE_FIELD, None)

    head = '{"tenant": "acme", "recipient": "e", "decided_at": "2026-11-23T10:00:00Z", '
    twins = head + '"purposes": {"engagement": {"open": "off", "open": "personal"}}}'
    assert refusal("native", twins.encode(), topic=PREFERENCES) == (Reason.DUPLICATE_FIELD, "purposes")
    proof = '"proof": {"source": "a", "source": "b", "text_version": "1"}}'
    grant = head + '"purposes": {"engagement": {"open": "personal"}}, ' + proof
    assert refusal("native", grant.encode(), topic=PREFERENCES)[0] == Reason.NO_PROOF
    lowering = only("native", (head + '"purposes": "*", "mode": "off", ' + proof).encode(), topic=PREFERENCES)
    assert isinstance(lowering, Message)
    assert record(lowering, TENANTS_TOO, NOW_MS).key == b"acme\x1fe"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"tenant": "unknown"}, Reason.UNKNOWN_TENANT, "tenant"),
        ({"recipient": "erika@"}, Reason.BAD_RECIPIENT, "recipient"),
        ({"recipient": "x" * 321}, Reason.BAD_RECIPIENT, "recipient"),
        ({"occurred_at": "2026-11-23T10:00:00"}, Reason.BAD_TIME, "occurred_at"),
        ({"occurred_at": 10**30}, Reason.BAD_VALUE, None),
        ({"occurred_at": NOW_MS + 3_600_000}, Reason.BAD_TIME, "occurred_at"),
        ({"kind": "bounce"}, Reason.UNKNOWN_KIND, "kind"),
        ({"event_id": "x" * 65}, Reason.BAD_VALUE, "event_id"),
        ({"mailing": CANARY}, Reason.BAD_VALUE, "mailing"),
    ],
)
def test_native_events_are_judged_as_the_worker_will(change: Any, reason: Reason, field: str | None) -> None:
    assert refusal("native", json.dumps(EVENT | change).encode()) == (reason, field)


def test_the_tenants_rule_for_local_parts_makes_the_key() -> None:
    def key(tenant: str) -> bytes:
        item = only("native", json.dumps(EVENT | {"tenant": tenant, "recipient": " ErikA@BÜCHER.example "}).encode())
        assert isinstance(item, Message)
        return record(item, TENANTS_TOO, NOW_MS).key

    assert key("acme") == b"acme\x1fErikA@xn--bcher-kva.example"
    assert key("Acme-lower") == b"Acme-lower\x1ferika@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (True, Reason.WRONG_TYPE),
        ("1795000000", Reason.WRONG_TYPE),
        (float("inf"), Reason.BAD_TIME),
        (1_795_000_000_000, Reason.BAD_TIME),
        (-1, Reason.BAD_TIME),
    ],
)
def test_seconds_are_seconds(time: Any, reason: Reason) -> None:
    body = pack("sendgrid", load("sendgrid")[0] | {"timestamp": time}).replace(b"Infinity", b"1e999")
    assert refusal("sendgrid", body) == (reason, "occurred_at")


def fields(form: str, hit: Any, **options: Any) -> dict[str, Any]:
    item = only(form, pack(form, hit), **options)
    assert isinstance(item, Message)
    return item.fields


def test_where_the_mailing_is_found() -> None:
    sendgrid = load("sendgrid")[0] | {"singlesend_id": "ss-7"}
    assert fields("sendgrid", sendgrid)["mailing"] == "2026-11-advent"
    assert fields("sendgrid", sendgrid, mailing="singlesend_id")["mailing"] == "ss-7"
    assert fields("sendgrid", sendgrid, mailing="absent")["mailing"] == "newsletter"
    assert fields("sendgrid", sendgrid | {"category": "one"}, mailing="absent")["mailing"] == "one"
    assert refusal("sendgrid", pack("sendgrid", sendgrid), mailing="email") == (Reason.BAD_VALUE, "mailing")
    mailgun = load("mailgun")[0]
    mailgun["event-data"]["user-variables"]["mailing"] = 4711
    assert fields("mailgun", mailgun)["mailing"] == "4711"
    assert fields("mailgun", mailgun, mailing="absent")["mailing"] == "2026-11-advent"
    ses = load("ses")[1]
    assert fields("ses", ses, mailing="absent")["mailing"] == "2026-11-herbst"  # the only tag of the sender's own
    ses["Message"]["mail"]["tags"]["person"] = ["4711"]
    assert refusal("ses", pack("ses", ses), mailing="absent") == (Reason.MISSING_FIELD, "mailing")


def test_the_vendors_word_on_machines() -> None:
    mailgun = load("mailgun")[0]
    for bot, actor in {"apple": "machine", "generic": "machine", "gmail": None, "": None, None: None}.items():
        mailgun["event-data"]["client-info"]["bot"] = bot
        assert fields("mailgun", mailgun).get("actor") == actor
    sendgrid = load("sendgrid")[0]
    assert "actor" not in fields("sendgrid", sendgrid)
    assert fields("sendgrid", sendgrid | {"sg_machine_open": True})["actor"] == "machine"


def test_ids_fit_and_postmark_gets_one() -> None:
    long = load("sendgrid")[0] | {"sg_event_id": "x" * 100}
    first = fields("sendgrid", long)["event_id"]
    assert len(first) == 64
    assert first != fields("sendgrid", long | {"sg_event_id": "x" * 101})["event_id"]

    click = next(hit for hit in load("postmark") if hit["RecordType"] == "Click")
    known = fields("postmark", click)["event_id"]
    assert known == fields("postmark", click | {"UserAgent": "other"})["event_id"]  # a retry, or a second tap
    for change in (
        {"MessageID": "other"},
        {"Recipient": "other"},
        {"ReceivedAt": "2026-11-20T10:00:00Z"},
        {"OriginalLink": "https://other.example"},
    ):
        assert known != fields("postmark", click | change)["event_id"]


def test_what_is_no_withdrawal() -> None:
    postmark = next(hit for hit in load("postmark") if hit["RecordType"] == "SubscriptionChange")
    for change in ({"SuppressSending": False}, {"SuppressionReason": "HardBounce"}):
        item = only("postmark", pack("postmark", postmark | change), withdraw="off")
        assert item == Ignored("subscription change")
    subscription: Any = copy.deepcopy(SES_SUBSCRIPTION)
    assert fields("ses", subscription, withdraw="off")["recipient"] == "erika@example.com"
    preferences = subscription["Message"]["subscription"]
    preferences["newTopicPreferences"], preferences["oldTopicPreferences"] = (
        preferences["oldTopicPreferences"],
        preferences["newTopicPreferences"],
    )
    assert only("ses", pack("ses", subscription), withdraw="off") == Ignored("subscription")
    assert fields("mailgun", MAILGUN_UNSUBSCRIBED, withdraw="anonymous")["decided_at"] == 1_795_000_000_500


@pytest.mark.parametrize(
    ("envelope", "what"),
    [
        ({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example"}, "subscription confirmation"),
        ({"Type": "Notification", "Message": '{"notificationType": "Bounce"}'}, "bounce"),
        ({"Type": "Notification", "Message": "Successfully validated SNS topic for Amazon SES."}, "validation"),
    ],
)
def test_what_sns_says_besides_is_ignored(envelope: Any, what: str) -> None:
    assert only("ses", json.dumps(envelope).encode()) == Ignored(what)
