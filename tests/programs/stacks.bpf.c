// SPDX-License-Identifier: MIT
// Asks for the stacks on which it runs: the kernel's, and those of the process as addresses and by
// the build ids of the files that they are in.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define STACKS(flags, frame, count)				\
	struct {						\
		__uint(type, BPF_MAP_TYPE_STACK_TRACE);		\
		__uint(map_flags, flags);			\
		__uint(max_entries, count);			\
		__uint(key_size, sizeof(__u32));		\
		__uint(value_size, 32 * frame);			\
	}

// With so many buckets that hardly ever two stacks want the same one, which is EEXIST.
STACKS(0, sizeof(__u64), 16000) kernel_stacks SEC(".maps");
STACKS(0, sizeof(__u64), 16000) user_stacks SEC(".maps");
STACKS(BPF_F_STACK_BUILD_ID, sizeof(struct bpf_stack_build_id), 16000) build_ids SEC(".maps");

SEC("raw_tp/sys_enter")
int in_the_kernel(struct bpf_raw_tracepoint_args *ctx)
{
	return bpf_get_stackid(ctx, &kernel_stacks, 0);
}

SEC("raw_tp/sys_enter")
int in_the_process(struct bpf_raw_tracepoint_args *ctx)
{
	return bpf_get_stackid(ctx, &user_stacks, BPF_F_USER_STACK);
}

SEC("raw_tp/sys_enter")
int in_its_files(struct bpf_raw_tracepoint_args *ctx)
{
	return bpf_get_stackid(ctx, &build_ids, BPF_F_USER_STACK);
}

SEC("raw_tp/sys_enter")
int in_no_file(struct bpf_raw_tracepoint_args *ctx)
{
	return bpf_get_stackid(ctx, &build_ids, 0);
}

// A stack for each number of frames that are left out.
SEC("raw_tp/sys_enter")
int in_part(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_get_stackid(ctx, &kernel_stacks, 1);
	bpf_get_stackid(ctx, &kernel_stacks, 2);
	return bpf_get_stackid(ctx, &kernel_stacks, 3);
}

char _license[] SEC("license") = "GPL";
