// SPDX-License-Identifier: MIT
// Counts in some of its global variables, and watches whether anybody disturbs that.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#define LOOPS 256

enum mode { MODE_OFF, MODE_WATCH, MODE_BLOCK };

struct limits {
	__u32 soft;
	__u32 hard;
	__u8 level;
	struct {
		__u16 first;
		__u16 last;
	} ports;
	__u32 low : 4, middle : 12;
	char name[8];
};

// .bss: what the program changes is between what users do. (Without "= 0" the compiler would put
// them in the order of their use.)
volatile __u64 before = 0;
volatile __u64 counter = 0;
volatile __u64 after = 0;
volatile __u64 whole = 0;
volatile __u8 above = 0, tick = 0, below = 0, beside = 0;
volatile struct {
	__u32 left;
	__u32 count;
	__u32 right;
} triple = {};
struct limits *volatile pointer;

// .data
volatile __u64 threshold = 1000;
volatile enum mode mode = MODE_WATCH;
volatile bool enabled = true;
volatile __s32 offsets[4] = { 1, -2, 3, -4 };
volatile char label[16] = "first";
volatile struct limits limits = { 10, 20, 3, { 80, 443 }, 5, 1000, "web" };
static volatile __u32 hidden = 7;

// .rodata
const volatile __u32 limit = 42;
const volatile char version[8] = "v1";

// Sections of their own; users leave the second one alone.
__u32 setting SEC(".data.settings") = 1;
struct {
	__u64 counter, lost, torn;
	__u32 count;
	__u8 tick;
} expected SEC(".data.expected");

SEC("socket")
int count(struct __sk_buff *ctx)
{
	static volatile __u32 calls;

	calls++;
#pragma clang loop unroll(disable)
	for (int i = 0; i < LOOPS; i++) {
		__u64 seen = whole;

		counter++;
		tick++;
		triple.count++;
		expected.counter++;
		expected.tick++;
		expected.count++;
		if (counter != expected.counter || tick != expected.tick ||
		    triple.count != expected.count)
			expected.lost++;
		if (seen >> 32 != (seen & 0xffffffff))
			expected.torn++;
	}
	return hidden + limit + setting + version[0];
}

char LICENSE[] SEC("license") = "MIT";
