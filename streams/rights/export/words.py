"""The words of the page, German and English. Data are never among them."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """One thing in both languages."""

    de: str
    en: str


EVERY_PURPOSE = Words("Für alle Zwecke", "For all purposes")
MODES = {
    "off": Words("aus (nicht gezählt)", "off (not counted)"),
    "anonymous": Words("anonym (nur gezählt)", "anonymous (counted only)"),
    "pseudonymous": Words("pseudonym (ohne Namen gespeichert)", "pseudonymous (held without a name)"),
    "personal": Words("persönlich (mit Namen verbunden)", "personal (linked to a name)"),
}
KINDS = {"open": Words("Öffnung", "open"), "click": Words("Klick", "click"), "": Words("alle", "all")}
DEVICES = {
    "desktop": Words("Computer", "desktop"),
    "phone": Words("Telefon", "phone"),
    "tablet": Words("Tablet", "tablet"),
    "other": Words("anderes", "other"),
}
EFFECTS = {
    "raised": Words("erteilt oder erweitert", "given or widened"),
    "lowered": Words("widerrufen oder eingeschränkt", "withdrawn or narrowed"),
    "confirmed": Words("bestätigt", "confirmed"),
    "unchanged": Words("unverändert", "unchanged"),
    "out_of_date": Words("überholt, ohne Wirkung", "out of date, without effect"),
    "capped": Words("vom Absender eingeschränkt", "narrowed by the sender"),
    "erased": Words("gelöscht", "erased"),
}
YES = {"True": Words("ja", "yes"), "False": Words("nein", "no")}
PROOF = {
    "proof": Words("Nachweis", "Proof"),
    "source": Words("Quelle", "Source"),
    "text_version": Words("Fassung des Textes", "Version of the text"),
    "evidence": Words("Beleg", "Evidence"),
    "age_check": Words("Altersprüfung", "Age check"),
    "recorded_by": Words("Festgehalten von", "Recorded by"),
    "conditional": Words("An etwas anderes geknüpft", "Something else depended on it"),
    "recorded_at": Words("Eingetragen", "Recorded"),
    "preference_id": Words("Nachricht", "Message"),
}
KEPT = {"no_limit": Words("bis es ersetzt oder gelöscht wird", "until it is replaced or removed")}
ACTIONS = {  # of the audit trail; one that is not here is shown as it stands
    "consents_shown": Words("Ihre Einwilligungen wurden angezeigt", "your consents were shown"),
    "looked_up": Words("zu einem Pseudonym wurde Ihr Name aufgelöst", "your name was looked up by a pseudonym"),
    "erasure_planned": Words("eine Löschung wurde vorbereitet", "an erasure was planned"),
    "erasure_asked": Words("Ihre Löschung wurde beantragt", "your erasure was asked for"),
    "exported": Words("eine Auskunft wurde erstellt", "an answer to a request for access was made"),
    "export_opened": Words("eine Auskunft wurde geöffnet", "an answer to a request for access was opened"),
    "export_expired": Words("eine Auskunft ist abgelaufen", "an answer to a request for access expired"),
    "rekeyed": Words("Ihr Pseudonym wurde unter einem neuen Schlüssel neu gebildet", "your pseudonym was made anew"),
}
PLACES = {
    "tracking.events": Words(
        "Öffnungen und Klicks, wie der Absender sie geschickt hat, mit Adresse",
        "opens and clicks as the sender sent them, with the address",
    ),
    "tracking.preferences": Words(
        "Einwilligungen und Widerrufe, wie der Absender sie geschickt hat",
        "consents and withdrawals as the sender sent them",
    ),
    "tracking.requests": Words(
        "Anträge auf Auskunft und Löschung, auch dieser", "requests for access and erasure, this one too"
    ),
    "tracking.changes": Words(
        "angenommene Entscheidungen, bis sie ausgeführt sind", "accepted decisions, until they are carried out"
    ),
    "tracking.state": Words(
        "Ihre Einstellungen, die oben unter „Was jetzt gilt“ stehen", "your choices, as above under “What holds now”"
    ),
    "tracking.rejected": Words(
        "Nachrichten, die nicht verwendet werden konnten, versiegelt; nicht nach Personen durchsuchbar",
        "messages that could not be used, sealed; they cannot be searched for persons",
    ),
    "seen": Words(
        "verschlüsselte Kennzeichen von Nachrichten, um doppelte zu erkennen; führen zu niemandem zurück",
        "keyed hashes of messages, to know duplicates; they lead back to nobody",
    ),
    "cells_unique": Words(
        "verschlüsselte Kennzeichen, um Empfänger je Mailing genau einmal zu zählen, bis dessen Zählung schließt",
        "keyed hashes by which recipients are counted once for each mailing, until its counting closes",
    ),
    "exports": Words("versiegelte Auskünfte, die auf Antrag erstellt wurden", "sealed answers to requests for access"),
    "backups": Words(
        "Sicherungskopien der beiden Speicher, wenn der Betreiber welche macht, für so lange, wie er sie aufhebt",
        "backups of the two stores, if the operator makes any, for as long as they are kept",
    ),
}
