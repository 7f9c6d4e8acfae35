// SPDX-License-Identifier: MIT
// Code that calls functions of the kernel, and reads its variables.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The loader wants a struct where the kernel has one, whatever is in it.
struct task_struct {
};
struct bpf_cpumask {
};

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym;

// Kernels without CONFIG_KALLSYMS_ALL have names for few of their variables.
extern const void __start_rodata __ksym;
extern const void vfs_read __ksym;

struct request {
	__s32 pid;
	__u32 found;
	__u64 address;
};

SEC("syscall")
int calls_the_kernel(struct request *request)
{
	struct task_struct *task = bpf_task_from_pid(request->pid);
	struct bpf_cpumask *mask;

	request->found = task != 0;
	if (task)
		bpf_task_release(task);
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	mask = bpf_cpumask_create();
	if (mask)
		bpf_cpumask_release(mask);
	return -3;
}

SEC("syscall")
int has_addresses(struct request *request)
{
	request->address = (__u64)&__start_rodata;
	request->found = (__u64)&vfs_read;
	return 0;
}

// What comes of it depends on the rights of who runs it.
SEC("syscall")
int makes_a_map(void *ctx)
{
	union bpf_attr attr;
	int fd;

	__builtin_memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = attr.value_size = sizeof(__u32);
	attr.max_entries = 1;
	fd = bpf_sys_bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
	if (fd < 0)
		return fd;
	bpf_sys_close(fd);
	return 0;
}

// It leaves the descriptor of a map called `left` with whoever runs it, and closes what it is told.
SEC("syscall")
int leaves_a_map(struct request *request)
{
	union bpf_attr attr;

	if (request->pid > 0)
		bpf_sys_close(request->pid);
	__builtin_memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = attr.value_size = sizeof(__u32);
	attr.max_entries = 1;
	__builtin_memcpy(attr.map_name, "left", 4);
	request->found = 1;
	return bpf_sys_bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
}

char LICENSE[] SEC("license") = "GPL";
