"""Which events of one partition have been seen in the last 24 h of Kafka's record time: exact, about 20 bytes each.

The rule, which is all that a caller may build on:

- The partition's clock is the highest hour at which an event was remembered.
- An event's effective hour is its own (the hour of its record time), or the clock where that is later.
- It is a duplicate if its hash was remembered at an hour h and its effective hour is at most h + 24. Else it is new,
  and is remembered at its effective hour: also where record time ran backwards, 24 h are 24 h.

What to keep in the store is therefore `Look.hours`, not the record's own hour: a memory loaded from that gives the same
answers as the one that wrote it. Entries older than 24 h are dropped when it suits; no answer depends on it, since the
clock never goes back.

How: open addressing with linear probing over two numpy arrays, a hash (8 bytes) and the age of its hour (1 byte) in
each slot; a slot is empty where the age is 0, so every 64-bit number may be remembered. The tables are made anew, 0.45
full, when they are fuller than 0.7, and when expiry has left them emptier than 0.42: at most 22 bytes for each event
that can still have a duplicate, save in the smallest table. While they are made anew, old and new are both there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WINDOW: Final = 24  # hours
FULLEST, FRESH, EMPTIEST = 0.7, 0.45, 0.42
SMALLEST = 1_024  # slots
BLOCK = 1 << 16  # entries moved at a time: bounds what is needed beside the tables
NEVER: Final = np.iinfo(np.int64).min // 2  # the hour of what was never seen


@dataclass(frozen=True, slots=True)
class Look:
    """What remembering a batch would do: made by `Seen.look`, carried out by `Seen.commit`."""

    new: Hashes
    """Distinct hashes to remember."""
    at: Ints
    """The effective hour of each of `new`."""
    hours: Ints
    """The effective hour of every event of the batch: what the store keeps for the new ones."""
    version: int


class Seen:
    """The memory of one partition. Not for two threads at once."""

    __slots__ = ("_ages", "_clock", "_epoch", "_filled", "_hashes", "_live", "_version")

    def __init__(self) -> None:
        self._hashes: Hashes = np.zeros(SMALLEST, np.uint64)
        self._ages: NDArray[np.uint8] = np.zeros(SMALLEST, np.uint8)  # hour - epoch; 0 is an empty slot, 1 an old entry
        self._epoch = self._clock = NEVER
        self._filled = self._live = 0  # slots in use; those of them within the window
        self._version = 0

    @property
    def clock(self) -> int | None:
        """The highest hour at which an event was remembered; None before the first."""
        return None if self._clock == NEVER else self._clock

    @property
    def nbytes(self) -> int:
        """Bytes of both tables."""
        return self._hashes.nbytes + self._ages.nbytes

    def __len__(self) -> int:
        """How many events are remembered and within the window."""
        return self._live

    def look(self, hashes: Hashes, hours: Ints) -> tuple[Bools, Look]:
        """Which events of a batch are new, in its order, without remembering them.

        `hashes` uint64[n], any values, repeated or not; `hours` int64[n], the hour since 1970 of each record's time.
        Returns bool[n] (True: count it; of several in the batch the first is new) and what to hand to `commit` once
        the batch is safe. Looking again before that gives the same.
        """
        hours = np.asarray(hours, np.int64)
        distinct, where = np.unique(hashes, return_inverse=True)
        remembered = self._hours_of(distinct)
        new = np.zeros(len(hashes), np.bool_)
        effective = np.empty(len(hashes), np.int64)
        first = np.empty(len(distinct), np.int64)
        clock, start = self._clock, 0
        while start < len(hashes):
            hour, end = self._run(hours, start, clock)
            run = where[start:end]
            effective[start:end] = hour
            first[run[::-1]] = np.arange(end - start)[::-1]  # of repeated indices the last assignment stays
            fresh = (hour - remembered[run] > WINDOW) & (first[run] == np.arange(end - start))
            new[start:end] = fresh
            remembered[run[fresh]] = hour
            if fresh.any():
                clock = hour
            start = end
        touched = np.zeros(len(distinct), np.bool_)
        touched[where[new]] = True
        return new, Look(distinct[touched], remembered[touched], effective, self._version)

    @staticmethod
    def _run(hours: Ints, start: int, clock: int) -> tuple[int, int]:
        """The longest run from `start` whose events have one effective hour, whichever of them turn out to be new."""
        rest = hours[start:]
        hour = max(int(rest[0]), clock)
        ends = rest > clock if hour == clock else rest != hour
        return hour, start + (int(ends.argmax()) if ends.any() else len(rest))

    def commit(self, look: Look) -> None:
        """Remember what `look` found new. Raises ValueError if the memory has changed since: look again."""
        if look.version != self._version:
            raise ValueError("the memory has changed since the look")
        self._remember(look.new, look.at)

    def add(self, hashes: Hashes, hours: Ints) -> Bools:
        """`look` and `commit` in one."""
        new, look = self.look(hashes, hours)
        self.commit(look)
        return new

    def load(self, hashes: Hashes, hours: Ints) -> None:
        """Remember what the store has (effective hours), in any order, in as many calls as suits, repeated or not.

        Of a hash that comes with several hours the latest counts, also against what is remembered already.
        """
        for start in range(0, len(hashes), BLOCK):
            block, at = hashes[start : start + BLOCK], hours[start : start + BLOCK]
            order = np.lexsort((at, block))
            block, at = block[order], at[order]
            last = np.append(block[1:] != block[:-1], True)
            block, at = block[last], at[last]
            later = at > self._hours_of(block)
            self._remember(block[later], at[later])

    def _hours_of(self, hashes: Hashes) -> Ints:
        """When each of `hashes` was remembered; NEVER, or any hour before the window, if it cannot matter."""
        slots, found = self._find(hashes)
        return np.where(found, self._ages[slots].astype(np.int64) + self._epoch, NEVER)

    def _remember(self, hashes: Hashes, hours: Ints) -> None:
        """Remember distinct hashes, each later than it was remembered before, if it was."""
        if not len(hashes):
            return
        self._version += 1
        self._advance(int(hours.max()))
        within = hours >= self._clock - WINDOW
        hashes, hours = hashes[within], hours[within]
        if self._filled + len(hashes) > FULLEST * len(self._hashes):
            self._rebuild(len(hashes))
        slots, found = self._find(hashes)
        ages = (hours - self._epoch).astype(np.uint8)
        old = slots[found]
        self._live += len(hashes) - int((self._ages[old] >= self._clock - WINDOW - self._epoch).sum())
        self._filled += len(hashes) - len(old)
        self._ages[old] = ages[found]
        self._insert(hashes[~found], ages[~found], slots[~found])

    def _advance(self, hour: int) -> None:
        """Move the clock to `hour` if that is later; count what is still within the window."""
        if hour <= self._clock:
            return
        ahead = hour - self._epoch
        self._clock = hour
        if ahead > np.iinfo(np.uint8).max:  # ages have one byte: count from a later hour, everything older becomes 1
            epoch = hour - WINDOW - 2
            shift = min(epoch - self._epoch, 254)
            used = self._ages > 0
            self._ages[used] = np.maximum(self._ages[used], shift + 1) - shift
            self._epoch = epoch
        self._live = int(np.count_nonzero(self._ages >= max(hour - WINDOW - self._epoch, 1)))
        if self._live < EMPTIEST * len(self._hashes):
            self._rebuild(0)

    def _rebuild(self, more: int) -> None:
        """Move what is within the window into tables with room for it and `more`."""
        hashes, ages = self._hashes, self._ages
        slots = max(SMALLEST, int((self._live + more) / FRESH) + 1)
        if slots == len(hashes) == SMALLEST and self._filled == self._live:
            return
        self._hashes, self._ages = np.zeros(slots, np.uint64), np.zeros(slots, np.uint8)
        oldest = max(self._clock - WINDOW - self._epoch, 1)
        for start in range(0, len(hashes), BLOCK):
            block, block_ages = hashes[start : start + BLOCK], ages[start : start + BLOCK]
            live = block_ages >= oldest
            self._insert(block[live], block_ages[live], self._home(block[live]))
        self._filled = self._live

    def _home(self, hashes: Hashes) -> Ints:
        """The slot at which the search for a hash begins. Multiplied first, so that poor hashes spread as well."""
        mixed = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        return ((mixed * np.uint64(len(self._hashes))) >> np.uint64(32)).astype(np.int64)

    def _next(self, slots: Ints) -> Ints:
        slots = slots + 1
        slots[slots == len(self._hashes)] = 0
        return slots

    def _find(self, hashes: Hashes) -> tuple[Ints, Bools]:
        """The slot of each hash and True, or the empty slot at which its search ended and False."""
        slots = self._home(hashes)
        found = np.zeros(len(hashes), np.bool_)
        left = np.arange(len(hashes))
        at = slots.copy()
        while len(left):
            there = self._hashes[at]
            empty = there == 0
            if empty.any():
                empty[empty] = self._ages[at[empty]] == 0  # 0 may be a hash as well
            hit = (there == hashes[left]) & ~empty
            done = hit | empty
            slots[left[done]] = at[done]
            found[left[hit]] = True
            left, at = left[~done], self._next(at[~done])
        return slots, found

    def _insert(self, hashes: Hashes, ages: NDArray[np.uint8], slots: Ints) -> None:
        """Put distinct hashes that are not there into the first empty slots from `slots` on."""
        while len(hashes):
            free = np.flatnonzero(self._ages[slots] == 0)
            at = slots[free]
            self._hashes[at] = hashes[free]  # several may claim one slot: the last one has it
            won = free[self._hashes[at] == hashes[free]]
            self._ages[slots[won]] = ages[won]
            lost = np.ones(len(hashes), np.bool_)
            lost[won] = False
            hashes, ages, slots = hashes[lost], ages[lost], self._next(slots[lost])
