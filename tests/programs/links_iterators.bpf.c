// SPDX-License-Identifier: MIT
// Iterators: some that write a line for each thing, one that counts, and some that are odd.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

// As much of the kernel's structures as is used here; the loader finds members by name.
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((preserve_access_index));

struct bpf_map;

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

struct task_struct {
	int pid;
	int tgid;
} __attribute__((preserve_access_index));

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));

struct file;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} __attribute__((preserve_access_index));

struct cgroup;

struct bpf_iter__cgroup {
	struct bpf_iter_meta *meta;
	struct cgroup *cgroup;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100000);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

__u64 runs = 0; // of all these programs, but for those that are called for nothing at the end

static __always_inline void count(void)
{
	__sync_fetch_and_add(&runs, 1);
}

SEC("iter/bpf_map_elem")
int each_element(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;
	__u64 *value = ctx->value;

	if (!key || !value)
		return 0;
	count();
	BPF_SEQ_PRINTF(ctx->meta->seq, "%u: %llu\n", *key, *value);
	return 0;
}

SEC("iter/bpf_map_elem")
int each_element_too(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;

	if (key)
		BPF_SEQ_PRINTF(ctx->meta->seq, "other\n");
	return 0;
}

SEC("iter/bpf_map_elem")
int again_and_again(struct bpf_iter__bpf_map_elem *ctx)
{
	count();
	return 1; // the same element once more: EAGAIN
}

static int spin(__u32 index, void *unused)
{
	return 0;
}

SEC("iter/bpf_map_elem")
int slowly(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;

	if (!key)
		return 0;
	count();
	bpf_loop(1 << 20, spin, NULL, 0);
	if (*key == 0xffffffff)
		BPF_SEQ_PRINTF(ctx->meta->seq, "never\n");
	return 0;
}

SEC("iter/task")
int each_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task) {
		count();
		BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d\n", task->tgid, task->pid);
	}
	return 0;
}

SEC("iter/task_file")
int each_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;

	if (task && ctx->file) {
		count();
		BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d\n", task->pid, ctx->fd);
	}
	return 0;
}

SEC("iter/cgroup")
int each_cgroup(struct bpf_iter__cgroup *ctx)
{
	if (ctx->cgroup) {
		count();
		BPF_SEQ_PRINTF(ctx->meta->seq, "cgroup\n");
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
