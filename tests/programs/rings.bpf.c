// SPDX-License-Identifier: MIT
// Writes records to rings as it is told, and drains a ring that is written by users.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#define BURST 64
#define LONGEST (1 << 18)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} fast SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} large SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user SEC(".maps");

// What users tell it.
volatile __u32 length = 0;
volatile __u64 flags = 0;
volatile bool discards = false;
volatile __u64 page = 0;
volatile char data[LONGEST] = {};

// What it tells them.
volatile bool held = false;
volatile __u64 sequence = 0;
volatile __u64 refused = 0;

struct event {
	__u64 sequence;
	__u32 address;
	__u16 port;
	char name[6];
};

// The compiler leaves types out of the BTF that no variable or function has.
const struct event *unused __attribute__((unused));

SEC("socket")
int put(struct __sk_buff *ctx)
{
	__u32 size = length;

	if (size > LONGEST)
		return 1;
	return bpf_ringbuf_output(&small, (void *)data, size, flags) != 0;
}

SEC("socket")
int put_large(struct __sk_buff *ctx)
{
	__u32 size = length;

	if (size > LONGEST)
		return 1;
	return bpf_ringbuf_output(&large, (void *)data, size, flags) != 0;
}

SEC("socket")
int put_event(struct __sk_buff *ctx)
{
	struct event *event = bpf_ringbuf_reserve(&small, sizeof(*event), 0);

	if (!event)
		return 1;
	event->sequence = sequence++;
	event->address = 0x0100000a;
	event->port = 443;
	__builtin_memcpy(event->name, "event", 6);
	bpf_ringbuf_submit(event, flags);
	return 0;
}

SEC("socket")
int skip(struct __sk_buff *ctx)
{
	void *record = bpf_ringbuf_reserve(&small, 24, 0);

	if (!record)
		return 1;
	__builtin_memset(record, 0xff, 24);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

// Has a record of 8 bytes, each of them 0x77, that is being written until users give it the page
// that it reads meanwhile.
SEC("syscall")
int hold(void *ctx)
{
	__u64 *record = bpf_ringbuf_reserve(&small, sizeof(*record), 0);
	char byte;

	if (!record)
		return 1;
	*record = 0x5555555555555555;
	held = true;
	bpf_copy_from_user(&byte, sizeof(byte), (void *)page);
	held = false;
	*record = 0x7777777777777777;
	if (discards)
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
	return 0;
}

// Records of 16 to 271 bytes: a number, and each byte behind it tells whose it is.
SEC("socket")
int burst(struct __sk_buff *ctx)
{
	static struct {
		__u64 number;
		__u8 rest[264];
	} made;

	for (int i = 0; i < BURST; i++) {
		made.number = sequence;
		__builtin_memset(made.rest, sequence % 251, sizeof(made.rest));
		if (bpf_ringbuf_output(&fast, &made, 16 + (sequence * 7 & 255), flags))
			refused++;
		else
			sequence++;
	}
	return 0;
}

extern __u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym;

static long drained(struct bpf_dynptr *sample, void *ctx)
{
	__u64 size = bpf_dynptr_size(sample) & (2 * LONGEST - 1);

	if (size > LONGEST || bpf_dynptr_read((void *)data, size, sample, 0, 0))
		return 1;
	bpf_ringbuf_output(&large, (void *)data, size, 0);
	return 0;
}

// What users write to their ring is written to the large one.
SEC("socket")
int drain(struct __sk_buff *ctx)
{
	return bpf_user_ringbuf_drain(&user, drained, NULL, 0);
}

char LICENSE[] SEC("license") = "GPL";
