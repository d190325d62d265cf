"""The same work done by Schleuse and by what a user would pick instead: docs/speed.md, `make bench-compare`."""
