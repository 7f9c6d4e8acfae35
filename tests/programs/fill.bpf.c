// SPDX-License-Identifier: MIT
// Fills what only programs can fill: a ring, stacks, the storage of a cgroup. Drains a user's ring.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ringbuf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user_ringbuf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 16 * sizeof(__u64));
} stack_trace SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} cgroup_storage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} percpu_cgroup_storage SEC(".maps");

__u64 sum = 0;

SEC("raw_tp/sys_enter")
int fill(void *ctx)
{
	__u32 record = 0x01020304;

	bpf_ringbuf_output(&ringbuf, &record, sizeof(record), 0);
	return bpf_get_stackid(ctx, &stack_trace, 0);
}

static long add(struct bpf_dynptr *sample, void *ctx)
{
	__u32 number = 0;

	bpf_dynptr_read(&number, sizeof(number), sample, 0, 0);
	sum += number;
	return 0;
}

SEC("raw_tp/sys_enter")
int drain(void *ctx)
{
	return bpf_user_ringbuf_drain(&user_ringbuf, add, NULL, 0);
}

SEC("cgroup_skb/egress")
int count(struct __sk_buff *ctx)
{
	__u64 *each = bpf_get_local_storage(&cgroup_storage, 0);
	__u64 *here = bpf_get_local_storage(&percpu_cgroup_storage, 0);

	__sync_fetch_and_add(each, 1);
	*here += 1;
	return 1;
}

char _license[] SEC("license") = "GPL";
