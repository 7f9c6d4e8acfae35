// SPDX-License-Identifier: MIT
// Tells whether the process that runs it is in a cgroup.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} groups SEC(".maps");

SEC("raw_tp/sys_enter")
int probe(void *ctx)
{
	return bpf_current_task_under_cgroup(&groups, 1);
}
