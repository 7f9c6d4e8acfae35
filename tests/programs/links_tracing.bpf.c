// SPDX-License-Identifier: MIT
// Programs that watch functions of the kernel and of another program, and one that replaces such.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

SEC("?fentry/bpf_fentry_test1")
int BPF_PROG(on_kernel_function, int a)
{
	return 0;
}

SEC("?fentry")
int BPF_PROG(on_program, int unused)
{
	return 0;
}

SEC("?freplace")
int replacement(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
