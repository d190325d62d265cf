"""Fuzzing: `python -m tests.fuzz TARGET --seconds N`, or `make fuzz` for every target.

A target (`targets/`, one file each) is a function of bytes that raises when a promise is broken: `check(data)`, with
`seeds()` to begin from. Atheris (engine.py) looks for bytes that reach new lines; what it finds is kept in
`corpus/TARGET/` when it adds a line that nothing kept reaches (corpus.py), and so is whatever breaks a promise. The
default suite puts the whole corpus through the targets again (test_corpus.py) and does without Atheris.
"""
