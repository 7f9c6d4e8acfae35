// SPDX-License-Identifier: MIT
// Gives the process that runs it, as a struct of the kernel has it. It is compiled with the types.h
// of a kernel, and is to be loaded by another, in which the struct is different.

#include "types.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("raw_tp/sys_enter")
int process(void *context)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	pid_t process = 0;

	bpf_probe_read_kernel(&process, sizeof(process), &task->tgid);
	return process;
}
