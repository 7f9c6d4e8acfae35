// SPDX-License-Identifier: MIT
// Iterators that tell how many references the kernel holds to each map, program and link.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

// As much of the kernel's structures as is used here; the loader finds members by name.
struct seq_file;

typedef struct {
	long long counter;
} atomic64_t;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_map {
	atomic64_t refcnt;
	atomic64_t usercnt;
	__u32 id;
} __attribute__((preserve_access_index));

struct bpf_prog_aux {
	atomic64_t refcnt;
	__u32 id;
} __attribute__((preserve_access_index));

struct bpf_prog {
	struct bpf_prog_aux *aux;
} __attribute__((preserve_access_index));

struct bpf_link {
	atomic64_t refcnt;
	__u32 id;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_link {
	struct bpf_iter_meta *meta;
	struct bpf_link *link;
} __attribute__((preserve_access_index));

SEC("iter/bpf_map")
int of_maps(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;

	if (map)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u %lld %lld\n", map->id, map->refcnt.counter,
			       map->usercnt.counter);
	return 0;
}

SEC("iter/bpf_prog")
int of_programs(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *prog = ctx->prog;

	if (prog)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u %lld\n", prog->aux->id,
			       prog->aux->refcnt.counter);
	return 0;
}

SEC("iter/bpf_link")
int of_links(struct bpf_iter__bpf_link *ctx)
{
	struct bpf_link *link = ctx->link;

	if (link)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u %lld\n", link->id, link->refcnt.counter);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
