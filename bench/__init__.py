"""Benchmarks: programs that print their figures. `make bench` runs all on a cluster of its own; each can be run alone
(`python -m bench.NAME --help`)."""
