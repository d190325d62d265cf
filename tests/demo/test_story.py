"""The demo's truth, recomputed from its messages alone by plain code that shares nothing with the generator."""

import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from aggregates.actors import classify
from pseudonymizer.recipients import BadRecipient, canonical
from streams.decode import Event, read_event
from streams.demo.story import EVENTS, PREFERENCES, Message, Story, plan
from streams.errors import BadRow, Reason
from streams.messages import parse_mailing, parse_preference
from streams.partitioner import message_key
from streams.tenants import parse

NOW = 1_795_517_000_000
DAY = 86_400_000
EVENTS_PLANNED = 6_000
NEVER, ALWAYS = 1 << 62, -1
Who = tuple[str, str]


class Reader:
    """Reads a story's messages as a stranger would."""

    def __init__(self, story: Story) -> None:
        self.tenants = tomllib.loads(story.tenants_toml)
        self.settings = parse(story.tenants_toml)
        self.links = {(said["tenant"], said["mailing"]): said["links"] for said in story.declarations}

    def who(self, tenant: str, recipient: str) -> Who:
        return tenant, canonical(recipient, self.tenants[tenant].get("local_part") == "lower")

    def decisions(self, messages: Iterable[Message]) -> dict[Who, list[tuple[int, str, str]]]:
        """Person -> (decided, kind, mode), in the order sent. Every message must be one that intake accepts."""
        found: dict[Who, list[tuple[int, str, str]]] = {}
        for message in messages:
            said = json.loads(message.value)
            asked = parse_preference(message.value, self.settings, NOW)
            who = self.who(said["tenant"], said["recipient"])
            assert message.key == message_key(*who)
            modes = said["purposes"]
            modes = dict.fromkeys(("open", "click"), said["mode"]) if modes == "*" else modes["engagement"]
            found.setdefault(who, []).extend((asked.decided_at, kind, mode) for kind, mode in modes.items())
        return found

    def event(self, message: Message) -> Event | Reason:
        try:
            event = read_event(message.value, NOW)
            if event.tenant not in self.tenants:
                return Reason.UNKNOWN_TENANT
            who = self.who(event.tenant, event.recipient)
        except BadRow as why:
            return why.reason
        except BadRecipient:
            return Reason.BAD_RECIPIENT
        assert message.key == message_key(*who)
        return event

    def link(self, event: Event) -> str:
        declared = self.links[event.tenant, event.mailing]
        if event.link in declared:
            return str(event.link)
        assert event.url is not None
        page, _, query = event.url.partition("?")
        kept = [
            part for part in query.split("&") if part.split("=")[0] in self.tenants[event.tenant].get("url_keys", ())
        ]
        url = "?".join([page, *kept])
        for link, declared_url in declared.items():
            if declared_url == url:
                return str(link)
        return page if self.tenants[event.tenant].get("links") == "path" and "@" not in page else "other"


def _counts_from(decisions: list[tuple[int, str, str]], kind: str) -> int:
    since = ALWAYS
    for decided, of_kind, mode in sorted(decisions):
        if of_kind == kind:
            since = NEVER if mode == "off" else decided if since == NEVER else since
    return since


@pytest.fixture(scope="module", params=[1, 2, 3])
def story(request: pytest.FixtureRequest) -> Story:
    return plan(EVENTS_PLANNED, request.param, NOW)


def test_the_truth_is_what_the_messages_say(story: Story) -> None:
    reader = Reader(story)
    said = reader.decisions(story.waves)
    outcomes = dict.fromkeys(("counted", "off", "duplicates", "rejected"), 0)
    reasons: Counter[str] = Counter()
    cells: dict[Any, list[Who]] = {}
    seen: set[tuple[str, str]] = set()
    for message in story.timeline():
        if message.topic != EVENTS:
            continue
        event = reader.event(message)
        if isinstance(event, Reason):
            outcomes["rejected"] += 1
            reasons[event.value] += 1
            continue
        if (event.tenant, event.event_id) in seen:
            outcomes["duplicates"] += 1
            continue
        seen.add((event.tenant, event.event_id))
        who = reader.who(event.tenant, event.recipient)
        if event.occurred_ms < _counts_from(said.get(who, []), event.kind):
            outcomes["off"] += 1
            continue
        outcomes["counted"] += 1
        actor = event.actor or str(classify(event.user_agent, event.ip))
        for link in {None, reader.link(event)} if event.kind == "click" else {None}:
            cells.setdefault((event.tenant, event.mailing, event.kind, link, actor), []).append(who)
    assert outcomes == story.truth.outcomes
    assert sum(outcomes.values()) == story.truth.received
    assert dict(reasons) == story.truth.rejected_by_reason
    assert {cell: (len(people), len(set(people))) for cell, people in cells.items()} == story.truth.cells


def test_the_truth_does_not_depend_on_when_midway_preferences_are_carried_out(story: Story) -> None:
    reader = Reader(story)
    before = reader.decisions(story.waves)
    timeline = list(story.timeline())
    midway = reader.decisions(message for message in timeline if message.topic == PREFERENCES)
    events = [reader.event(message) for message in timeline if message.topic == EVENTS]
    act = {reader.who(event.tenant, event.recipient) for event in events if isinstance(event, Event)}
    assert any(mode == "off" for said in midway.values() for _, _, mode in said)
    for who, said in midway.items():
        if any(mode == "off" for _, _, mode in said):
            assert who not in act
        else:
            assert not any(mode == "off" for _, _, mode in before.get(who, []))
        assert max(decided for decided, _, _ in before.get(who, [(ALWAYS, "", "")])) < min(at for at, _, _ in said)


def test_it_is_a_believable_week(story: Story) -> None:
    reader = Reader(story)
    for message in story.declarations_as_messages():
        parse_mailing(message.value, reader.settings)
    declared = {(said["tenant"], said["mailing"]): said for said in story.declarations}
    events = [event for m in story.timeline() if isinstance(event := reader.event(m), Event)]
    assert 0.9 < story.truth.received / EVENTS_PLANNED < 1.1
    week = [event for event in events if event.mailing not in story.earlier]
    assert all(NOW - 7 * DAY < event.occurred_ms < NOW for event in week)
    before = {event.occurred_ms // (30 * DAY) for event in events if event.mailing in story.earlier}
    assert len(before) >= 5  # of so many months there is something
    assert 0.03 < 1 - len(week) / len(events) < 0.2
    for (tenant, mailing, _, _, _), (count, people) in story.truth.cells.items():
        assert 0 < people <= min(count, declared[tenant, mailing]["recipients"])
    assert all(story.truth.outcomes[term] for term in ("counted", "off", "duplicates", "rejected"))
    granted = {
        who for who, said in reader.decisions(story.waves).items() if any("p" in mode[:1] for _, _, mode in said)
    }
    everybody = {reader.who(event.tenant, event.recipient) for event in events} | granted
    assert 0.2 < len(granted) / len(everybody) < 0.4
    other = [cell for cell in story.truth.cells if cell[3] == "other"]
    assert other
    assert any(cell[3] == "https://verein.example/satzung" for cell in story.truth.cells)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    def everything(seed: int) -> list[Message]:
        made = plan(2_000, seed, NOW)
        return [*made.declarations_as_messages(), *made.waves, *made.timeline()]

    again = plan(2_000, 5, NOW)
    assert everything(5) == everything(5)
    assert list(again.timeline()) == list(again.timeline())
    assert again.truth == plan(2_000, 5, NOW).truth
    assert everything(5) != everything(6)


def test_half_a_million_events_take_seconds() -> None:
    begin = time.process_time()
    for _ in plan(20_000, 1, NOW).timeline():
        pass
    assert (time.process_time() - begin) / 20_000 < 40e-6  # seconds an event; measured 15


def test_no_person_is_in_a_repr(story: Story) -> None:
    hit = next(item for item in story._items if not isinstance(item, tuple) or len(item) > 2)
    sending = story._sendings[0]
    for shown in (repr(story), repr(hit), repr(sending), repr(sending.people[0]), repr(story.waves[0])):
        assert "@" not in shown
