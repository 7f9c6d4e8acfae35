// SPDX-License-Identifier: MIT
// Maps with keys and values of as many C types as there are. The program itself does nothing: it is
// there for the compiler to describe the types, and for libbpf to make the maps.

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAP(kind, key_type, value_type, name)			\
	struct {						\
		__uint(type, BPF_MAP_TYPE_##kind);		\
		__uint(max_entries, 64);			\
		__type(key, key_type);				\
		__type(value, value_type);			\
	} name SEC(".maps")

#define TAGGED(tag) __attribute__((btf_type_tag(tag)))

// Integers.

struct integers {
	__u8 u8;
	__s8 s8;
	__u16 u16;
	__s16 s16;
	__u32 u32;
	__s32 s32;
	__u64 u64;
	__s64 s64;
	unsigned __int128 u128;
	__int128 s128;
	bool flag;
	char letter;
	signed char signed_char;
	unsigned char unsigned_char;
	long number;
	unsigned long long large;
	__le32 little;
	__sum16 checksum;
};

MAP(HASH, __u8, __s8, bytes);
MAP(HASH, __s8, __u8, signed_bytes);
MAP(HASH, __u16, __s16, shorts);
MAP(HASH, __s16, __u16, signed_shorts);
MAP(HASH, __u32, __s32, words);
MAP(HASH, __s32, __u32, signed_words);
MAP(HASH, __u64, __s64, longs);
MAP(HASH, __s64, __u64, signed_longs);
MAP(HASH, unsigned __int128, __int128, giants);
MAP(HASH, __int128, unsigned __int128, signed_giants);
MAP(HASH, char, bool, letters);
MAP(HASH, __u32, struct integers, integers);

// Bitfields.

enum color { RED, GREEN, BLUE = 5 };

struct bits {
	unsigned int one : 1;
	unsigned int : 2;
	unsigned int some : 7;
	int sign : 5;
	bool flag : 1;
	enum color color : 3;
	unsigned char small : 4;
	char letter : 6;
	unsigned long long large : 50;
	long long negative : 37;
	unsigned int : 0;
	__be32 network : 12;
	unsigned int whole : 32;
	unsigned __int128 giant : 100;
	__u8 after;
};

struct packed_bits {
	unsigned char first : 3;
	unsigned long long across : 61;
	long long further : 63;
	signed char last : 1;
} __attribute__((packed));

union bit_union {
	__u32 whole;
	struct {
		__u32 low : 20;
		__s32 high : 12;
	};
};

MAP(HASH, __u32, struct bits, bits);
MAP(HASH, struct packed_bits, union bit_union, packed_bits);

// Enumerations.

enum negative { BELOW = -1, AT = 0, ABOVE = 1 };
enum __attribute__((packed)) tiny { LEAST, FIRST = 1, LAST = 200 };
enum __attribute__((packed)) tiny_negative { UNDER = -128, MINUS = -1, OVER = 127 };
enum __attribute__((packed)) small { ORDINARY = 1000, HIGH = 40000 };
enum twice { ONE = 1, UNO = 1, TWO = 2, DOS = 2 };
enum high { TOP = 0x80000000u, ALL = 0xffffffffu, NONE = 0 };
enum wide { WIDE_ONE = 1, WIDE_TWO = 2, WIDE = 0x7fffffffffffffff };
typedef enum { OFF, ON } on_off;

struct enumerations {
	enum color color;
	enum negative negative;
	enum tiny tiny;
	enum tiny_negative tiny_negative;
	enum small small;
	enum twice twice;
	enum high high;
	enum wide wide;
	on_off on_off;
	enum { NO_NAME, OF_ITS_OWN } anonymous;
	const enum color colors[3];
};

MAP(HASH, enum color, enum negative, colors);
MAP(HASH, enum tiny_negative, enum tiny, tinies);
MAP(HASH, enum high, enum small, smalls);
MAP(HASH, on_off, enum wide, wides);
MAP(HASH, __u32, struct enumerations, enumerations);

// Texts.

typedef char name_t[12];
typedef char letter_t;

struct texts {
	char text[16];
	const char constant[5];
	name_t name;
	letter_t letters[6];
	char one[1];
	char table[3][4];
	char cube[2][2][4];
	unsigned char bytes[6];
	signed char signed_bytes[3];
};

MAP(HASH, char[16], name_t, names);
MAP(HASH, char[3][4], unsigned char[6], tables);
MAP(HASH, __u32, struct texts, texts);

// Structs, unions and arrays within one another.

struct point {
	__s16 x;
	__s16 y;
};

struct with_gaps {
	__u8 first;
	__u64 second;
	__u16 third;
};

struct __attribute__((packed)) packed_struct {
	__u8 first;
	__u64 second;
	__u16 third;
	struct point point;
};

struct nested {
	__u32 before;
	struct {
		__u32 left;
		union {
			__u64 both;
			struct {
				__u32 low;
				__u32 high;
			};
			__u8 each[8];
		};
	};
	struct {
		__u32 left;
		struct point inner;
	} named;
	union {
		struct point point;
		__s32 number;
		char text[4];
	} either;
	struct with_gaps gaps;
	struct packed_struct packed;
};

struct arrays {
	__u16 row[3];
	__s32 table[2][3];
	__u8 cube[2][2][2];
	struct point points[2];
	union {
		__u16 number;
		__u8 bytes[2];
	} unions[2];
	struct point grid[2][1];
	bool flags[3];
	void *pointers[2];
	__int128 giants[2];
};

struct empty {
};

struct with_nothing {
	__u32 before;
	__u32 zero[0];
	struct empty empty;
	struct empty empties[2];
	char text[0];
	__u16 after;
	struct point flexible[];
};

typedef __u32 number_t;
typedef number_t number_alias;
typedef struct point point_t;
typedef point_t triangle[3];

struct qualified {
	const __u32 constant;
	volatile __s16 changing;
	const volatile number_alias both;
	point_t point;
	const triangle corners;
	int *restrict restricted;
};

MAP(HASH, struct point, struct with_gaps, points);
MAP(HASH, struct with_gaps, struct packed_struct, gaps);
MAP(HASH, struct packed_struct, struct point, packeds);
MAP(HASH, struct nested, struct nested, nesteds);
MAP(HASH, __s32[2][3], triangle, grids);
MAP(HASH, __u32, struct arrays, arrays);
MAP(HASH, __u32, struct with_nothing, nothings);
MAP(HASH, const volatile number_alias, struct qualified, qualifieds);

// Pointers.

struct pointers {
	void *nothing;
	const char *text;
	struct pointers *next;
	struct declared *unknown;
	int (*function)(struct point *, const char *);
	void (**functions)(void);
	name_t *names;
};

MAP(HASH, void *, struct pointers, pointers);

// What a type's name tells.

struct network {
	__be16 port;
	__be32 address;
	__be64 number;
	const __be16 ports[3];
	struct in_addr source;
	struct in6_addr destination;
	struct in_addr hops[2];
};

struct endpoint {
	struct in_addr address;
	__be16 port;
};

MAP(HASH, __be16, __be64, ports);
MAP(HASH, struct in_addr, struct in6_addr, addresses);
MAP(HASH, struct in6_addr, __be32, addresses6);
MAP(HASH, struct endpoint, struct network, networks);

// What the kernel keeps for itself.

// LLVM 14 leaves the tag out where what is pointed to is a struct, but not where it is a typedef, and
// describes a struct in full only where it is used as such.
struct task_struct {
	int pid;
} task_struct_is_used;
typedef struct task_struct task;

struct special {
	__u32 before;
	struct bpf_spin_lock lock;
	struct bpf_timer timer;
	task TAGGED("kptr") *task;
	__u32 after;
};

MAP(HASH, __u32, struct special, specials);
MAP(ARRAY, __u32, struct special, special_array);

// Other kinds of maps.

struct counter {
	__u64 packets;
	__s32 difference;
	char device[8];
};

MAP(ARRAY, __u32, struct nested, nested_array);
MAP(LRU_HASH, struct endpoint, struct counter, recent);
MAP(PERCPU_HASH, struct endpoint, struct counter, each_cpu);
MAP(PERCPU_ARRAY, __u32, __u16, each_array);
MAP(LRU_PERCPU_HASH, char[4], struct point, each_recent);

// Floating-point numbers.

struct floats {
	__u32 before;
	float single;
	double both;
	long double extended;
	__u32 after;
};

MAP(HASH, __u32, struct floats, floats);
MAP(HASH, __u32, double, doubles);

// Global variables.

__u32 counter = 7;
__s64 negative = -5;
struct point origin = { -1, 2 };
char greeting[12] = "hello";
enum color colors_now[2] = { GREEN, BLUE };
static volatile __u16 hidden_from_others = 0x1234;

__u64 total;
bool enabled;
struct nested everything;
static volatile struct counter per_file;

const volatile __u32 limit = 0xfffffff0;
const volatile char version[8] = "1.2-rc3";
const volatile struct point corners[2] = { { 1, -1 }, { 32767, -32768 } };
const volatile __be16 http = bpf_htons(80);

SEC("socket")
int nothing(void *context __attribute__((unused)))
{
	hidden_from_others++;
	per_file.packets++;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
