// SPDX-License-Identifier: MIT
// Programs that count the packets of one protocol and let all pass, each by itself.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline int counted(struct xdp_md *ctx, __u32 who)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > end || eth->h_proto != bpf_htons(ETH_P_802_EX1))
		return XDP_PASS;
	__u64 *count = bpf_map_lookup_elem(&counts, &who);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	return counted(ctx, 0);
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	return counted(ctx, 1);
}

SEC("xdp/devmap")
int elsewhere(struct xdp_md *ctx)
{
	return counted(ctx, 2);
}

SEC("socket")
int another_type(struct __sk_buff *skb)
{
	return 0;
}

char LICENSE[] SEC("license") = "MIT";
