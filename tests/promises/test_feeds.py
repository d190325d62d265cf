"""One story in four vendors' formats, fed as a sender's engineer feeds it, comes out as the one truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.stack import Stack
from tests.feed.test_truth import FEEDS, VENDORS, cells, hits, truth
from tests.lock import Lock, shown

pytestmark = pytest.mark.stack

TENANTS = "".join(f"[{name}]\n" for name in VENDORS)
UNTOLD = {"ses": 10}  # tests/feeds/README.md: hits of mails with two destinations can be attributed to neither


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("feeds"), "tansu", die_with_parent=True) as stack,
        Lock(stack, TENANTS) as running,
    ):
        running.worker()
        yield running


def feed(lock: Lock, path: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """`schleuse feed` as a process; its account."""
    done = lock.run("feed", *options, "--json", str(path), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    account: dict[str, Any] = json.loads(done.stdout)
    assert account["bodies"] == account["sent"] + account["ignored"] + account["refused"]
    assert done.stderr.count(f"{path}:") == account["refused"], "what was refused is told by file and line"
    return account


def figures(lock: Lock) -> dict[str, dict[str, dict[str, int]]]:
    """tenant -> cell as truth.json names it -> events and recipients, from `schleuse totals`."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for line in json.loads(lock.run("totals", "--json").stdout):
        assert set(line) == {"tenant", "mailing", "kind", "link", "actor", "events", "recipients"}
        if line["kind"] == "click" and line["link"] is None:
            continue  # all links together; truth.json has them one by one
        name = "/".join(line[part] for part in ("mailing", "kind", "link", "actor") if line[part])
        found.setdefault(line["tenant"], {})[name] = {"events": line["events"], "recipients": line["recipients"]}
    return found


def expected(vendor: str) -> dict[str, dict[str, int]]:
    """The truth, less what the format cannot tell (by the same ids in a format that can)."""
    if vendor not in UNTOLD:
        return truth()
    whole, told = hits("mailgun"), hits(vendor)
    assert len(whole) - len(told) == UNTOLD[vendor]
    return cells(hit for event_id, hit in whole.items() if event_id in told)


def test_four_vendors_give_the_truth_to_the_unit_and_twice_changes_nothing(lock: Lock) -> None:
    declared = feed(lock, FEEDS / "mailings.ndjson", "--topic", "mailings")
    assert declared["sent"] == 8
    # A declaration holds for every claim that is taken after the broker has it: no need to wait.
    sent = 0
    accounts = {}
    for vendor in VENDORS:
        path = FEEDS / f"{vendor}.ndjson"
        account = feed(lock, path, "--format", vendor, "--tenant", vendor, code=1 if vendor in UNTOLD else 0)
        bodies = [json.loads(line) for line in path.read_text().splitlines()]
        assert account["bodies"] == sum(len(body) if isinstance(body, list) else 1 for body in bodies)
        assert account["refused_by_reason"] == ({"not_attributable": UNTOLD[vendor]} if vendor in UNTOLD else {})
        accounts[vendor] = account
        sent += account["sent"]
    said = lock.settle(received=sent)
    assert figures(lock) == {vendor: expected(vendor) for vendor in VENDORS}
    assert said["counted"] == sum(truth_["events"] for vendor in VENDORS for truth_ in expected(vendor).values())
    assert (said["off"], said["rejected"]) == (0, 0)
    assert said["counted"] + said["duplicates"] == said["received"] == sent
    first = said["counted"]

    for vendor in VENDORS:
        path = FEEDS / f"{vendor}.ndjson"
        again = feed(lock, path, "--format", vendor, "--tenant", vendor, "--allow-refused")
        assert again["sent"] == accounts[vendor]["sent"]
    said = lock.settle(received=2 * sent)
    assert figures(lock) == {vendor: expected(vendor) for vendor in VENDORS}
    assert (said["counted"], said["rejected"], said["adds_up"]) == (first, 0, True)


def test_an_unsubscribe_that_is_mapped_to_off_uncounts_nothing_and_holds_from_then_on(lock: Lock) -> None:
    before, received = figures(lock), lock.status()["received"]
    path = FEEDS / "postmark.ndjson"
    account = feed(lock, path, "--format", "postmark", "--tenant", "postmark", "--withdraw", "--withdraw-to", "off")
    received += account["sent"] - 1  # one body was the withdrawal
    lock.until(
        lambda: any(b'"withdrawal"' in record.value for record in lock.consume("tracking.receipts")),
        what="the receipt of the withdrawal",
    )
    # What she did before she unsubscribed, sent anew under other ids, counts no more; everybody else's does.
    (off,) = {json.loads(line)["Recipient"] for line in path.read_text().splitlines() if '"SubscriptionChange"' in line}
    hers = [line for line in path.read_text().splitlines() if json.loads(line)["Recipient"] == off]
    said = lock.settle(received=received)
    scratch = lock.stack.directory / "hers.ndjson"
    scratch.write_text("".join(line.replace('"MessageID": "', '"MessageID": "again-') + "\n" for line in hers))
    account = feed(lock, scratch, "--format", "postmark", "--tenant", "postmark")
    assert account["sent"] > 0
    now = lock.settle(received=received + account["sent"])
    assert now["off"] + now["duplicates"] == said["off"] + said["duplicates"] + account["sent"]
    assert now["off"] > said["off"]
    assert figures(lock) == before


def test_what_is_not_on_the_allow_list_goes_nowhere(lock: Lock) -> None:
    """`customer_no` and its like are the senders' own: they are in the feeds, and in no message of ours."""
    foreign = ["customer_no", "sg_message_id", "Geo", "client-info", "mail_timestamp"]
    story = "".join((FEEDS / f"{vendor}.ndjson").read_text() for vendor in VENDORS)
    present = [word for word in foreign if word in story]
    assert "customer_no" in present
    sent = b"".join(record.value or b"" for record in lock.consume("tracking.events"))
    assert [word for word in present if word.encode() in sent] == []
    assert b"mail.example" in sent
    assert "mail.example" not in shown(lock.stack.directory)
