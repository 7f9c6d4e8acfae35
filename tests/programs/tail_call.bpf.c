// SPDX-License-Identifier: MIT
// A program that calls whatever is in its table, and programs that can be there.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} table SEC(".maps");

SEC("socket")
int caller(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &table, 2);
	return 1; // the slot is empty
}

SEC("socket")
int first(struct __sk_buff *ctx)
{
	return 11;
}

SEC("socket")
int second(struct __sk_buff *ctx)
{
	return 22;
}

SEC("tc")
int other(struct __sk_buff *ctx)
{
	return 33;
}
