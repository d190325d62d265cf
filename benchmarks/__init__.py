"""Figures, never tests: what the lock costs on this machine. Each module runs alone, and says how with `--help`.

name       measures
worker     events/s through one worker, CPU µs an event by process, peak memory, time by stage
latency    produce to visible in the store; an acknowledged withdrawal to its effect
growth     workers, preferences, mailings, consent, remembered ids, claims, rows: one factor at a time
steady     a steady rate for an hour: memory, lag, parts, open files
bursts     a simulation of what a day of mailings does to the lag; no machine is measured
capacity   machines, partitions and storage for a billion events a day, from the results of all of them
accuracy   how far published figures are from the exact ones: docs/publishing.md
figures    publishing what is due of 2,000 mailings and 50 million events; a full store for whoever reads figures
compare    the same work done by others: a package of its own, docs/speed.md
hot_path   the stages that are ours, one core, without Kafka and stores

Everything else on a machine blurs them: the load average is printed, and ratios within one run are worth more than
figures of two days. `benchmarks.results` keeps the newest result of each under `benchmarks/results/`.
"""
