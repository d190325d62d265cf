"""User agents and IPs: told apart in bounded time, without raising, whatever the strings."""

from __future__ import annotations

import time
from collections.abc import Iterator

from aggregates.actors import Actor, classify
from aggregates.devices import Device, family

WORDS = (
    "Mozilla/5.0",
    "Android",
    "Mobile",
    "iPad",
    "Macintosh",
    "bot",
    "spider",
    "GoogleImageProxy",
    "Windows NT 10.0",
)
LONGEST_SECONDS = 1.0  # of this process; 20 µs are usual


def seeds() -> Iterator[bytes]:
    yield b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148\x0c203.0.113.7"
    yield b"Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"
    yield b"Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)\x0c::1"
    yield b"Barracuda Sentinel (EE) bot/1.0\x0cx"


def check(data: bytes) -> None:
    agent, ip, *_ = *data.decode("utf-8", "surrogateescape").split("\x0c"), ""
    classify("x"), family("x")  # the engine is built when it is first needed
    begun = time.process_time()
    assert classify(agent, ip) in Actor
    assert family(agent) in Device
    assert classify(agent * 50, ip) in Actor
    assert time.process_time() - begun < LONGEST_SECONDS
