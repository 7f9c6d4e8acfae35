// SPDX-License-Identifier: MIT
// A program for each type of link; the loader says what those are whose section it does not know.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100000);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

SEC("raw_tp/sys_enter")
int on_raw_tracepoint(void *ctx)
{
	return 0;
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup_skb/egress")
int on_egress_too(struct __sk_buff *skb)
{
	return 1;
}

SEC("sk_lookup")
int on_lookup(struct bpf_sk_lookup *ctx)
{
	return 1;
}

__noinline int verdict(struct xdp_md *ctx)
{
	return ctx->data ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int on_packet(struct xdp_md *ctx)
{
	return verdict(ctx);
}

SEC("tc")
int on_queue(struct __sk_buff *skb)
{
	return 0;
}

SEC("kprobe")
int on_probe(void *ctx)
{
	return 0;
}

SEC("kprobe")
int on_probes(void *ctx)
{
	return 0;
}

SEC("tp/syscalls/sys_enter_getpgid")
int on_tracepoint(void *ctx)
{
	return 0;
}

SEC("perf_event")
int on_event(void *ctx)
{
	return 0;
}

SEC("socket") // netfilter, for the loader of today
int on_hook(void *ctx)
{
	return 1;
}

SEC("sk_skb/stream_verdict")
int on_verdict(struct __sk_buff *skb)
{
	return 1; // SK_PASS
}

char LICENSE[] SEC("license") = "GPL";
