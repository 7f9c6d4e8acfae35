// SPDX-License-Identifier: MIT
// Runs a BPF program on a stack of its own for each number: the bits of the number are the functions
// on it. It is no BPF program, but a library of the tests.

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

static long descend(int program, unsigned number, int depth);

__attribute__((noinline)) static long zero(int program, unsigned number, int depth)
{
	return descend(program, number >> 1, depth - 1) + 0;
}

__attribute__((noinline)) static long one(int program, unsigned number, int depth)
{
	return descend(program, number >> 1, depth - 1) + 1;
}

__attribute__((noinline)) static long descend(int program, unsigned number, int depth)
{
	union bpf_attr attr = {};

	if (depth)
		return number & 1 ? one(program, number, depth) : zero(program, number, depth);
	attr.test.prog_fd = program;
	return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr));
}

// Stacks for the numbers below 2^depth; a run that fails makes it negative.
long run_deep(int program, int depth)
{
	long sum = 0;

	for (unsigned number = 0; number < 1u << depth; number++)
		sum += descend(program, number, depth) < 0 ? -1000000 : 0;
	return sum;
}
