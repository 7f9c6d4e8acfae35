// SPDX-License-Identifier: MIT
// Instructions that compilers seldom choose, written by hand. It is compiled for every CPU, and
// never loaded.

#define SECTION(NAME) __attribute__((section(NAME), used))
#define ASSEMBLY(...) asm volatile(__VA_ARGS__ ::: "memory")

SECTION("all") void every_cpu(void)
{
	ASSEMBLY("r0 = 0x123456789abcdef0 ll; r11 = -1 ll; r3 = 0 ll");
	ASSEMBLY("r1 = be16 r1; r2 = be32 r2; r3 = be64 r3; r4 = le16 r4; r5 = le32 r5; r6 = le64 r6");
	ASSEMBLY("r0 = *(u8 *)skb[0]; r0 = *(u16 *)skb[2147483647]; r0 = *(u32 *)skb[-1]");
	ASSEMBLY("r0 = *(u8 *)skb[r1]; r0 = *(u16 *)skb[r9]; r0 = *(u32 *)skb[r10]");
	ASSEMBLY("call 12; call -1; call 2147483647; call -2147483648");
	ASSEMBLY("r1 = -r1; r9 = -r9; r1 s>>= 63; r1 s>>= r2; r1 >>= 0; r1 <<= r10");
	ASSEMBLY("*(u64 *)(r10 - 32768) = r0; *(u8 *)(r10 + 32767) = r9; r0 = *(u16 *)(r1 - 1)");
	ASSEMBLY("lock *(u64 *)(r10 - 8) += r1; lock *(u32 *)(r1 + 0) += r2");
	ASSEMBLY("r1 -= 7; if r1 >= -7 goto +2; if r1 s>= 7 goto +2; if r1 <= 0 goto -2");
	ASSEMBLY("if r1 & 7 goto +0; if r1 & r2 goto +1; goto +0; goto -1; if r1 s<= -1 goto -7");
}

SECTION("words") void with_words(void)
{
#ifdef __BPF_FEATURE_ALU32
	ASSEMBLY("w1 = -w1; w1 = w2; w1 = -1; w1 s>>= 31; w1 s>>= w2; w1 %%= w3; w1 /= 7; w1 ^= -1");
	ASSEMBLY("lock *(u64 *)(r1 + 0) |= r2; lock *(u64 *)(r1 - 8) &= r2; lock *(u64 *)(r1 + 8) ^= r2");
	ASSEMBLY("lock *(u32 *)(r1 + 0) |= w2; lock *(u32 *)(r1 - 8) &= w2; lock *(u32 *)(r1 + 8) ^= w2");
	ASSEMBLY("w1 -= -2147483648");
	ASSEMBLY("r0 = atomic_fetch_add((u64 *)(r1 + 0), r0); w0 = atomic_fetch_xor((u32 *)(r1 - 4), w0)");
	ASSEMBLY("r5 = xchg_64(r1 + 8, r5); w5 = xchg32_32(r1 - 4, w5)");
	ASSEMBLY("r0 = cmpxchg_64(r1 - 8, r0, r5); w0 = cmpxchg32_32(r1 + 4, w0, w5)");
#endif
#ifdef __BPF_FEATURE_JMP32
	ASSEMBLY("if w1 & 7 goto +0; if w1 & w2 goto +1; if w1 s> -1 goto -2; if w1 <= w10 goto -32768");
	ASSEMBLY("if w1 >= 7 goto +7; if w1 s>= 7 goto +7; if w1 <= 7 goto +7; if w1 s<= 7 goto -7");
#endif
}

SECTION("newer") void of_newer_cpus(void)
{
#ifdef __BPF_FEATURE_BSWAP
	ASSEMBLY("r1 = bswap16 r1; r2 = bswap32 r2; r3 = bswap64 r3");
#endif
#ifdef __BPF_FEATURE_SDIV_SMOD
	ASSEMBLY("r1 s/= r2; r1 s/= -7; r1 s%%= r2; r1 s%%= 7; w1 s/= w2; w1 s/= -7; w1 s%%= w2; w1 s%%= 7");
#endif
#ifdef __BPF_FEATURE_MOVSX
	ASSEMBLY("r1 = (s8)r2; r1 = (s16)r2; r1 = (s32)r2; w1 = (s8)w2; w1 = (s16)w2");
#endif
#ifdef __BPF_FEATURE_LDSX
	ASSEMBLY("r1 = *(s8 *)(r2 + 1); r1 = *(s16 *)(r2 - 1); r1 = *(s32 *)(r10 - 4)");
#endif
#ifdef __BPF_FEATURE_ST
	ASSEMBLY("*(u8 *)(r1 + 0) = 255; *(u16 *)(r1 - 2) = -1; *(u32 *)(r1 + 4) = 2147483647");
	ASSEMBLY("*(u64 *)(r10 - 8) = -2147483648");
#endif
#ifdef __BPF_FEATURE_GOTOL
	ASSEMBLY("gotol +0; gotol -1; gotol +32767; gotol -32768");
#endif
#ifdef __BPF_FEATURE_MAY_GOTO
	ASSEMBLY("may_goto +0; may_goto -2");
#endif
#ifdef __BPF_FEATURE_ADDR_SPACE_CAST
	ASSEMBLY("r1 = addr_space_cast(r2, 0, 1); r1 = addr_space_cast(r2, 1, 0)");
#endif
#ifdef __BPF_FEATURE_LOAD_ACQ_STORE_REL
	ASSEMBLY("w1 = load_acquire((u8 *)(r2 + 0)); w1 = load_acquire((u16 *)(r2 - 2))");
	ASSEMBLY("w1 = load_acquire((u32 *)(r2 + 4)); r1 = load_acquire((u64 *)(r2 - 8))");
	ASSEMBLY("store_release((u8 *)(r1 + 0), w2); store_release((u16 *)(r1 - 2), w2)");
	ASSEMBLY("store_release((u32 *)(r1 + 4), w2); store_release((u64 *)(r1 - 8), r2)");
#endif
#ifdef __BPF_FEATURE_GOTOX
	ASSEMBLY("gotox r1; gotox r10");
#endif
	ASSEMBLY("callx r1; callx r9");
}
