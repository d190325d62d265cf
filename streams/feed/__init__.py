"""How a sender's events get in: our own format and the webhook bodies of four vendors (docs/feeding.md).

lines.py      a file or standard input -> numbered bodies, in bounded memory
formats.py    a body -> items, by the adapter of its format:
    native.py sendgrid.py mailgun.py postmark.py ses.py      pure; each picks named fields, the rest goes nowhere
records.py    a message of ours -> checked by the rules of the worker, keyed
send.py       records -> Kafka
run.py        all of it, counted: bodies = sent + ignored + refused
"""
