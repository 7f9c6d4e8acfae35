// SPDX-License-Identifier: MIT
// Changes maps with every packet: values of the keys below STAYING all the time, and those from
// there up to KEYS come and go. Keys from KEYS on are for others.
//
// A value tells whether it is whole and its key's own: all that is in it follows from its number
// and from the key.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define STAYING 32
#define KEYS 64
#define WORDS 6
#define ENTRIES 1024
// More than it needs: each CPU keeps some of what is free, and what is used may not be dropped.
#define LRU_ENTRIES 16384

struct prefix {
	__u32 length;
	__be32 address;
};

struct value {
	__u64 number;
	__u64 words[WORDS];
	__u64 checksum;
};

// The program changes these in place, and holds the lock while it does.
struct guarded {
	__u64 number;
	__u64 words[WORDS];
	struct bpf_spin_lock lock;
	__u64 checksum;
};

#define KEYED(NAME, TYPE, ENTRIES, VALUE)          \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_##TYPE); \
		__uint(max_entries, ENTRIES);      \
		__type(key, __u32);                \
		__type(value, VALUE);              \
	} NAME SEC(".maps")

KEYED(hash, HASH, ENTRIES, struct value);
KEYED(lru_hash, LRU_HASH, LRU_ENTRIES, struct value);
KEYED(locked_hash, HASH, ENTRIES, struct guarded);
KEYED(locked_array, ARRAY, ENTRIES, struct guarded);
KEYED(percpu_hash, PERCPU_HASH, STAYING, __u64);
KEYED(percpu_array, PERCPU_ARRAY, STAYING, __u64);

// Prefixes of 24 bits. One of 8 bits, of the number 0xffff, covers them all.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ENTRIES);
	__type(key, struct prefix);
	__type(value, struct value);
} lpm_trie SEC(".maps");

__u64 packets = 0;

#define MAKE(VALUE, KEY, NUMBER)                                         \
	do {                                                             \
		(VALUE)->number = (NUMBER);                              \
		for (int i = 0; i < WORDS; i++)                          \
			(VALUE)->words[i] = (NUMBER) * (2 * i + 3);      \
		(VALUE)->checksum = ((__u64)(KEY) << 48) ^ (NUMBER) * 7; \
	} while (0)

static __always_inline void change_in_place(void *map, __u32 key, __u64 number)
{
	struct guarded *guarded = bpf_map_lookup_elem(map, &key);

	if (guarded) {
		bpf_spin_lock(&guarded->lock);
		MAKE(guarded, key, number);
		bpf_spin_unlock(&guarded->lock);
	}
}

static __always_inline void count(void *map, __u32 key)
{
	__u64 *counted = bpf_map_lookup_elem(map, &key);

	if (counted)
		*counted += 1;
}

SEC("xdp")
int load(struct xdp_md *ctx)
{
	__u64 number = __sync_fetch_and_add(&packets, 1);
	__u32 key = number % STAYING, other = STAYING + number % (KEYS - STAYING);
	struct prefix prefix = { 24, bpf_htonl(10 << 24 | key << 8) };
	struct prefix some = { 24, bpf_htonl(10 << 24 | other << 8) };
	struct value value;

	MAKE(&value, key, number);
	bpf_map_update_elem(&hash, &key, &value, BPF_ANY);
	bpf_map_update_elem(&lru_hash, &key, &value, BPF_ANY);
	bpf_map_update_elem(&lpm_trie, &prefix, &value, BPF_ANY);
	change_in_place(&locked_hash, key, number);
	change_in_place(&locked_array, key, number);
	count(&percpu_hash, key);
	count(&percpu_array, key);

	if (number / (KEYS - STAYING) % 2) {
		MAKE(&value, other, number);
		bpf_map_update_elem(&hash, &other, &value, BPF_ANY);
		bpf_map_update_elem(&lru_hash, &other, &value, BPF_ANY);
		bpf_map_update_elem(&lpm_trie, &some, &value, BPF_ANY);
	} else {
		bpf_map_delete_elem(&hash, &other);
		bpf_map_delete_elem(&lru_hash, &other);
		bpf_map_delete_elem(&lpm_trie, &some);
	}
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
