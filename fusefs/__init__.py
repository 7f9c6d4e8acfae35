"""bpf-fusefs: a filesystem that opens up the pins of a bpffs."""

__version__ = "0.1.0"
