// SPDX-License-Identifier: MIT
// Types of every kind and layout, as a compiler has them. It is compiled, and never loaded.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;

enum color { RED, GREEN = 7, BLUE = -2 };
enum tiny { TINY = 200 } __attribute__((packed));
enum wide { WIDE = 0x123456789LL, WIDER };
enum middle { MIDDLE = 1 } __attribute__((mode(HI)));
typedef enum { UP, DOWN } direction;

struct node;
typedef int (*visitor)(struct node *node, const void *, ...);
typedef struct node *link;
typedef u8 address[6];
typedef struct { u16 from, to; } range;

struct node {
	link next;
	struct node *children[2];
	visitor visit;
	int (*(*chooser)(char, visitor))(range *, enum color);
	const char *const volatile name;
	const char *restrict text;
	range ranges[3][4], (*more)[5];
	address mac, *macs;
	struct unseen *unseen;
	union unseen_union **unseen_union;
};

struct bits {
	u32 a : 3, b : 5;
	u8 c : 4;
	u16 : 3;
	u16 d : 9;
	u64 e : 40, f : 30;
	int : 0;
	signed char g : 2;
	enum color color : 8;
	enum tiny tiny : 7;
	direction way : 1;
	bool yes : 1;
	unsigned __int128 h : 100;
};

struct packed_bits {
	u8 a : 3;
	u32 b : 31;
	u64 c : 64;
	u8 after;
	u16 d : 12;
} __attribute__((packed));

struct inner_packed {
	u8 a;
	u64 b;
	struct { u8 c; u32 d; } e;
} __attribute__((packed));

struct aligned {
	u8 a;
	u8 b __attribute__((aligned(64)));
	u32 c __attribute__((aligned(8)));
	struct inner_packed in;
} __attribute__((aligned(128)));

union sizes {
	u8 bytes[13];
	u32 word;
	struct { u16 low, high; };
	struct { u8 a : 3, b : 5; } parts;
	struct {} nothing;
};

struct outer {
	struct aligned aligned;
	union sizes sizes;
	struct {
		int first;
		union {
			float f;
			double d;
			struct { u8 deep[3]; enum { ONE = 1, TWO } number; };
		};
		struct { long x; } inside;
	};
	enum color color;
	enum tiny tiny;
	enum wide wide;
	enum middle middle;
	direction way;
	__int128 big;
	char nothing[0];
	struct opaque { u64 : 64; u64 : 64; } __attribute__((aligned(8))) opaque;
	bool flag;
	char text[16];
	int flexible[];
};

#define __user __attribute__((btf_type_tag("user")))
#define __rcu __attribute__((btf_type_tag("rcu")))
#define __tag(x) __attribute__((btf_decl_tag(x)))
struct tagged {
	int __user *one;
	const struct node __user __rcu *two;
	char __user *__rcu *three;
	int four __tag("four") __tag("4");
	int five : 5 __tag("five");
} __tag("whole");
typedef int number __tag("number");

struct node node;
struct bits bits;
struct packed_bits packed_bits;
struct inner_packed inner_packed;
struct aligned aligned;
union sizes sizes;
struct outer outer;
struct tagged tagged;
number counter;
const volatile u32 limit = 7;
static volatile u64 hidden;
struct { u32 (*key)[4]; range *value; } map __attribute__((section(".maps")));

__attribute__((noinline)) int helper(struct bits *given __tag("given"), u32 u32, range *range)
{
	return given->a + u32 + range->from;
}

__attribute__((section("xdp"))) int program(struct outer *ctx)
{
	range range = { 1, 2 };
	hidden += 1;
	return helper((struct bits *)ctx, limit, &range) + hidden;
}
