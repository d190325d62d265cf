"""Is it there yet? Short questions to a part of the stack; every failure is a plain no."""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Callable

from kafka.admin import KafkaAdminClient


def store(url: str) -> Callable[[], bool]:
    """Whether a ClickHouse endpoint answers its /ping."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=2) as answer:  # noqa: S310  an http address of ours
                return bool(answer.status == 200)
        except OSError:
            return False

    return ready


def broker(host: str, port: int) -> Callable[[], bool]:
    """Whether a broker answers a question about its topics, not only the knock at its port."""

    def ready() -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        logger = logging.getLogger("kafka")
        before, logger.level = logger.level, logging.CRITICAL  # a broker that is not up yet is no news
        try:
            admin = KafkaAdminClient(bootstrap_servers=f"{host}:{port}", request_timeout_ms=3000)
            try:
                admin.list_topics()
            finally:
                admin.close()
        except Exception:  # whatever went wrong, it is not ready
            return False
        finally:
            logger.level = before
        return True

    return ready
