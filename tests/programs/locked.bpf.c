// SPDX-License-Identifier: MIT
// Changes the values of key 0 in place, and holds their lock while it does. All words of a value are the same,
// unless somebody changes a part of it meanwhile; the program counts how often it finds that.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WORDS 254
#define STEPS 16

struct guarded {
	__u64 words[WORDS];
	struct bpf_spin_lock lock;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct guarded);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct guarded);
} array SEC(".maps");

__u64 number = 0, torn = 0;

static __always_inline void change(void *map)
{
	__u32 key = 0;
	struct guarded *guarded = bpf_map_lookup_elem(map, &key);
	__u64 set = ++number, differ = 0;

	if (!guarded)
		return;
	bpf_spin_lock(&guarded->lock);
	__u64 first = guarded->words[0];
#pragma clang loop unroll(disable)
	for (int i = 0; i < WORDS; i++) {
		differ |= guarded->words[i] ^ first;
		guarded->words[i] = set;
	}
	bpf_spin_unlock(&guarded->lock);
	if (differ)
		torn++;
}

SEC("xdp")
int locked(struct xdp_md *ctx)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < STEPS; i++) {
		change(&hash);
		change(&array);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
