"""`python -m streams.cli`: the same as `schleuse`."""

from streams.cli import main

main(prog_name="schleuse")
