// SPDX-License-Identifier: MIT
// Operations of every kind on every width, from which compilers choose very many instructions. It
// is compiled for every CPU and level of optimization, and never loaded.

typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(NAME) __attribute__((section(NAME), used))

extern void use(u64 value);

// Each operator with a variable, with constants of either sign, and as a condition.

#define OPERATOR(TYPE, NAME, SIGN, CONSTANT) \
	SECTION("operators") TYPE NAME##_##TYPE(TYPE a, TYPE b) { return a SIGN b; } \
	SECTION("operators") TYPE NAME##_constant_##TYPE(TYPE a) { return a SIGN(TYPE)(CONSTANT); } \
	SECTION("operators") void NAME##_memory_##TYPE(TYPE *a, TYPE b) \
	{ \
		a[3] SIGN## = b; \
		a[-2] SIGN## = (TYPE)(CONSTANT); \
	}

#define OPERATORS(TYPE) \
	OPERATOR(TYPE, add, +, 77) \
	OPERATOR(TYPE, sub, -, -1000000) \
	OPERATOR(TYPE, mul, *, -13) \
	OPERATOR(TYPE, and, &, 0x7ffffff0) \
	OPERATOR(TYPE, or, |, -4) \
	OPERATOR(TYPE, xor, ^, 0x55) \
	OPERATOR(TYPE, left, <<, 5) \
	OPERATOR(TYPE, right, >>, 3) \
	SECTION("operators") TYPE negative_##TYPE(TYPE a) { return -a; } \
	SECTION("operators") TYPE inverse_##TYPE(TYPE a) { return ~a; }

#define DIVISIONS(TYPE) \
	OPERATOR(TYPE, div, /, 10) \
	OPERATOR(TYPE, mod, %, 1000)

#define CONDITION(TYPE, NAME, SIGN) \
	SECTION("conditions") void NAME##_##TYPE(TYPE a, TYPE b) \
	{ \
		if (a SIGN b) \
			use(1); \
		if (a SIGN 100) \
			use(2); \
		if (a SIGN(TYPE) - 100) \
			use(3); \
		while ((a += 3)SIGN b) \
			use(4); \
	}

#define CONDITIONS(TYPE) \
	CONDITION(TYPE, equal, ==) \
	CONDITION(TYPE, unequal, !=) \
	CONDITION(TYPE, less, <) \
	CONDITION(TYPE, at_most, <=) \
	CONDITION(TYPE, greater, >) \
	CONDITION(TYPE, at_least, >=) \
	CONDITION(TYPE, has_bits, &)

#define EVERY(DO) DO(s8) DO(s16) DO(s32) DO(s64) DO(u8) DO(u16) DO(u32) DO(u64)

EVERY(OPERATORS)
EVERY(CONDITIONS)
DIVISIONS(u8)
DIVISIONS(u16)
DIVISIONS(u32)
DIVISIONS(u64)
#ifdef __BPF_FEATURE_SDIV_SMOD
DIVISIONS(s8)
DIVISIONS(s16)
DIVISIONS(s32)
DIVISIONS(s64)
#endif

// From each width to each other.

#define CONVERSION(FROM, TO) \
	SECTION("conversions") TO FROM##_to_##TO(FROM value) { return (TO)value; } \
	SECTION("conversions") void copy_##FROM##_to_##TO(FROM *from, TO *to) { to[1] = (TO)from[-1]; }

#define FROM_S8(TO) CONVERSION(s8, TO)
#define FROM_S16(TO) CONVERSION(s16, TO)
#define FROM_S32(TO) CONVERSION(s32, TO)
#define FROM_S64(TO) CONVERSION(s64, TO)
#define FROM_U8(TO) CONVERSION(u8, TO)
#define FROM_U16(TO) CONVERSION(u16, TO)
#define FROM_U32(TO) CONVERSION(u32, TO)

EVERY(FROM_S8)
EVERY(FROM_S16)
EVERY(FROM_S32)
EVERY(FROM_S64)
EVERY(FROM_U8)
EVERY(FROM_U16)
EVERY(FROM_U32)

#define STORE(TYPE) \
	SECTION("stores") void store_##TYPE(volatile TYPE *to) \
	{ \
		to[0] = 0; \
		to[1] = (TYPE)-1; \
		to[-3] = 100; \
	}

EVERY(STORE)

// The order of bytes.

SECTION("swaps") u16 swap_16(u16 value) { return __builtin_bswap16(value); }
SECTION("swaps") u32 swap_32(u32 value) { return __builtin_bswap32(value); }
SECTION("swaps") u64 swap_64(u64 value) { return __builtin_bswap64(value); }

// Atomic operations.

#define ATOMIC(TYPE) \
	SECTION("atomics") void atomic_##TYPE(TYPE *to, TYPE value) \
	{ \
		__sync_fetch_and_add(to + 1, value); \
		__sync_fetch_and_add(to - 1, 5); \
	}

#define FETCHING(TYPE) \
	SECTION("atomics") TYPE fetching_##TYPE(TYPE *to, TYPE value) \
	{ \
		__sync_fetch_and_and(to, value); \
		__sync_fetch_and_or(to + 2, value); \
		__sync_fetch_and_xor(to - 2, value); \
		value += __sync_fetch_and_add(to, value); \
		value += __sync_fetch_and_sub(to, value); \
		value += __sync_fetch_and_and(to + 1, value); \
		value += __sync_fetch_and_or(to + 3, value); \
		value += __sync_fetch_and_xor(to - 1, value); \
		value += __sync_lock_test_and_set(to, value); \
		value += __sync_val_compare_and_swap(to - 3, value, 7); \
		return value; \
	}

ATOMIC(u32)
ATOMIC(u64)
#if __BPF_CPU_VERSION__ >= 3 || defined(__BPF_FEATURE_ALU32)
FETCHING(u32)
FETCHING(u64)
#endif

#ifdef __BPF_FEATURE_LOAD_ACQ_STORE_REL
#define ORDERED(TYPE) \
	SECTION("ordered") void ordered_##TYPE(TYPE *from, TYPE *to) \
	{ \
		TYPE value = __atomic_load_n(from - 1, __ATOMIC_ACQUIRE); \
		__atomic_store_n(to + 1, value, __ATOMIC_RELEASE); \
	}
EVERY(ORDERED)
#endif

// Addresses, calls, packets, and jumps that are chosen from many.

static u64 counter;
static const u64 large[] = {0x123456789abcdefull, ~0ull, 1ull << 63, 0x80000000};
static __attribute__((noinline)) u64 doubled(u64 value) { return value * 2 + large[value & 3]; }
static u64 (*volatile chosen)(u64) = doubled;

SECTION("calls") u64 many_calls(u64 value)
{
	static u64 (*helper)(void *, u64) = (void *)9;

	counter += doubled(value) + 0x123456789abcdefull + ~(1ull << 40);
	return chosen(doubled(value)) + helper(&counter, 1ull << 63);
}

u64 load_byte(void *skb, u64 at) asm("llvm.bpf.load.byte");
u64 load_half(void *skb, u64 at) asm("llvm.bpf.load.half");
u64 load_word(void *skb, u64 at) asm("llvm.bpf.load.word");

SECTION("packets") u64 packet(void *skb, u64 at)
{
	return load_byte(skb, 12) + load_half(skb, 14) + load_word(skb, 26) + load_byte(skb, at) +
	       load_half(skb, at + 4) + load_word(skb, at);
}

SECTION("choices") u64 choice(u64 number, u64 a, u64 b)
{
	switch (number) {
	case 0: return a + b;
	case 1: return a - b;
	case 2: return a * b;
	case 3: return a / b;
	case 4: return a % b;
	case 5: return a << b;
	case 6: return a >> b;
	case 7: return a ^ b;
	case 8: return a | b;
	default: return a & b;
	}
}
