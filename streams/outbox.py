"""Messages that a command sends: all of them acknowledged by all in-sync replicas, or an error."""

from __future__ import annotations

from collections.abc import Iterable

from kafka import KafkaProducer

from streams.broker import told

ACK_SECONDS = 30.0

Message = tuple[str, int | None, bytes | None, bytes | None]
"""Topic, partition (None: where the key lies), key, value."""


def deliver(broker: str, doing: str, messages: Iterable[Message]) -> int:
    """Send, and wait for every one; how many there were. Blocking.

    Raises BrokerError, whose text names `doing`. A caller may NOT assume that nothing was sent then: whatever goes this
    way has to be harmless when it comes twice.
    """
    with told(broker, doing):
        producer = KafkaProducer(
            bootstrap_servers=broker.split(","),
            acks="all",
            enable_idempotence=False,  # the embedded broker has none
            max_request_size=4 << 20,
        )
        try:
            sent = [
                producer.send(topic, key=key, value=value, partition=partition)
                for topic, partition, key, value in messages
            ]
            for one in sent:
                one.get(ACK_SECONDS)
        finally:
            producer.close()
    return len(sent)
