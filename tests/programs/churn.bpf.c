// SPDX-License-Identifier: MIT
// Puts entries into maps and takes them out again, all the time. In each map the keys from 0 to
// 999 stay; those from 1000 to 1999 come and go, and each has twice its key for a value.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define STAYING 1000
#define STEPS 64

struct prefix {
	__u32 length;
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} percpu_hash SEC(".maps");

// Prefixes of 24 bits, whose third byte and a half are the number. One of 8 bits covers them all.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct prefix);
	__type(value, __u64);
} lpm_trie SEC(".maps");

__u32 next = 0;

SEC("socket")
int churn(struct __sk_buff *ctx)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < STEPS; i++) {
		__u32 number = STAYING + next * 7919 % STAYING;
		struct prefix prefix = { 24, bpf_htonl(10 << 24 | number << 8) };
		__u64 value = 2 * (__u64)number;

		if (next++ / STAYING % 2) {
			bpf_map_update_elem(&hash, &number, &value, BPF_ANY);
			bpf_map_update_elem(&percpu_hash, &number, &value, BPF_ANY);
			bpf_map_update_elem(&lpm_trie, &prefix, &value, BPF_ANY);
		} else {
			bpf_map_delete_elem(&hash, &number);
			bpf_map_delete_elem(&percpu_hash, &number);
			bpf_map_delete_elem(&lpm_trie, &prefix);
		}
	}
	return 0;
}
