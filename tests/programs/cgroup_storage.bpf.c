// SPDX-License-Identifier: MIT
// Counts the packets of a cgroup, in storages of cgroups of each kind; a program has one of either
// type.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// Twelve bytes, so that the values of two CPUs have four between them.
struct traffic {
	__u32 packets;
	__u32 bytes;
	__u32 mark;
};

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct traffic);
} typed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct traffic);
} typed_percpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__uint(key_size, sizeof(struct bpf_cgroup_storage_key));
	__uint(value_size, sizeof(struct traffic));
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__uint(key_size, sizeof(struct bpf_cgroup_storage_key));
	__uint(value_size, sizeof(struct traffic));
} untyped_percpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct traffic);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(struct traffic));
} shared_percpu SEC(".maps");

static __always_inline int count(struct __sk_buff *packet, void *one, void *each)
{
	struct traffic *traffic = bpf_get_local_storage(one, 0);

	traffic->packets++;
	traffic->bytes += packet->len;
	traffic = bpf_get_local_storage(each, 0);
	traffic->packets++;
	traffic->bytes += packet->len;
	return 1;
}

SEC("cgroup_skb/egress")
int count_typed(struct __sk_buff *packet)
{
	return count(packet, &typed, &typed_percpu);
}

SEC("cgroup_skb/egress")
int count_untyped(struct __sk_buff *packet)
{
	return count(packet, &untyped, &untyped_percpu);
}

SEC("cgroup_skb/egress")
int count_shared(struct __sk_buff *packet)
{
	return count(packet, &shared, &shared_percpu);
}

char _license[] SEC("license") = "GPL";
