// SPDX-License-Identifier: MIT
// Programs whose code refers to all that has a name: helpers, functions of their own, maps,
// variables.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} table SEC(".maps");

volatile __u64 seen = 0;
volatile struct flow total = {};
volatile __u32 threshold = 100;
volatile __u32 levels[4] = { 1, 2, 3, 4 };
const volatile __u32 limit = 1500;
const volatile bool strict = false;

static __noinline __u32 length_of(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

__noinline int verdict(__u32 length)
{
	if (strict && length > limit)
		return XDP_DROP;
	return length > threshold ? XDP_TX : XDP_PASS;
}

static long add(void *map, __u32 *key, struct flow *flow, __u64 *sum)
{
	*sum += flow->packets;
	return 0;
}

SEC("xdp")
int classify(struct xdp_md *ctx)
{
	__u32 key = bpf_get_prandom_u32() & 7;
	__u32 length = length_of(ctx);
	struct flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (flow) {
		__sync_fetch_and_add(&flow->packets, 1);
	} else {
		struct flow first = { 1, length };

		bpf_map_update_elem(&flows, &key, &first, BPF_ANY);
	}
	seen++;
	total.bytes += length;
	levels[2] = bpf_ktime_get_ns();
	return verdict(length);
}

SEC("xdp")
int sums(struct xdp_md *ctx)
{
	__u64 sum = 0;

	bpf_for_each_map_elem(&flows, add, &sum, 0);
	total.packets = sum;
	return XDP_PASS;
}

SEC("tc")
int jumps(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &table, 1);
	return skb->len > 60 ? 7 : -7;
}

// Turns the packet around, byte by byte.
SEC("xdp")
int rewrites(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 14 > end)
		return XDP_ABORTED;
#pragma clang loop unroll(full)
	for (int i = 0; i < 14; i++)
		data[i] = ~data[i];
	bpf_xdp_adjust_tail(ctx, -4);
	return XDP_TX;
}

static long spin(__u32 number, __u64 *sum)
{
	*sum += bpf_ktime_get_ns() & number;
	return 0;
}

#define ROUNDS (1 << 20)

// Takes long: some hundredths of a second, in which some kernels have nobody else run on that CPU.
SEC("tc")
int runs_long(struct __sk_buff *skb)
{
	__u64 sum = 0;

	bpf_loop(ROUNDS, spin, &sum, 0);
	return sum & 1;
}

SEC("raw_tp/sys_enter")
int on_context(struct bpf_raw_tracepoint_args *ctx)
{
	return ctx->args[0] + 2 * ctx->args[1];
}

// Code of which the lines are in two files that are not there.
#line 10 "elsewhere.h"
static __always_inline __u32 elsewhere(__u32 number)
{
	levels[0] = number;
	return number * 3;
}
#line 200 "here.c"
SEC("xdp")
int from_two_files(struct xdp_md *ctx)
{
	__u32 mark = elsewhere(ctx->rx_queue_index);
	levels[1] = mark;
	return mark & 3;
}

char LICENSE[] SEC("license") = "GPL";
