// SPDX-License-Identifier: MIT
// Counts how often a thread runs it, in the storage of the thread and in that of its cgroup.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct cgroup;

// Since Linux 6.2, and so not in all headers.
#define MAP_TYPE_CGRP_STORAGE 32
static void *(*cgrp_storage_get)(void *map, struct cgroup *cgroup, void *value, __u64 flags) =
	(void *)210;

struct css_set {
	struct cgroup *dfl_cgrp;
} __attribute__((preserve_access_index));

struct task_struct {
	struct css_set *cgroups;
} __attribute__((preserve_access_index));

struct runs {
	__u32 count;
	__u32 limit;
	char label[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct runs);
} tasks SEC(".maps");

struct {
	__uint(type, MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct runs);
} cgroups SEC(".maps");

SEC("raw_tp/sys_enter")
int touch(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct runs *runs;

	runs = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (runs)
		runs->count++;
	runs = cgrp_storage_get(&cgroups, task->cgroups->dfl_cgrp, NULL,
				BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (runs)
		runs->count++;
	return 0;
}

char _license[] SEC("license") = "GPL";
