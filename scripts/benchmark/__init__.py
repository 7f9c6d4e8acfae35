"""What `scripts/bench` runs: bpf-fusefs measured against others that do the same work.

Everything is measured in one run and given as a ratio, since times alone tell more of the machine
than of the program. The others are bpftool, the kernel's own `cat` of a pin, and the bare file
system in `bare.py`.
"""
