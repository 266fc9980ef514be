/* Functions that a processor may lack: SHA, AES, PCLMULQDQ, BMI2, AVX2, FMA, F16C. Prints what they compute, across
   calls, signals and threads, so that the state in the upper halves of registers must be kept. */
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

static void show(const char *name, const void *content, size_t size) {
    const unsigned char *byte = content;
    printf("%-12s ", name);
    for (size_t i = 0; i < size; i++)
        printf("%02x", byte[i]);
    printf("\n");
}

static uint32_t seed = 12345;
static void fill(void *content, size_t size) {
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1103515245 + 12345;
        ((unsigned char *)content)[i] = seed >> 16;
    }
}

static void sha(void) {
    __m128i state[2] __attribute__((aligned(16))), block[4] __attribute__((aligned(16)));
    fill(state, sizeof state);
    fill(block, sizeof block);
    for (int i = 0; i < 20; i++) {
        __m128i words = _mm_sha256msg2_epu32(_mm_sha256msg1_epu32(block[0], block[1]), block[3]);
        state[1] = _mm_sha256rnds2_epu32(state[1], state[0], words);
        state[0] = _mm_sha256rnds2_epu32(state[0], state[1], _mm_shuffle_epi32(words, 0x0E));
        block[i & 3] = _mm_xor_si128(words, block[i & 3]);
    }
    show("sha256", state, sizeof state);
    for (int i = 0; i < 20; i++) {
        __m128i next = _mm_sha1nexte_epu32(state[1], block[i & 3]);
        state[0] = _mm_sha1rnds4_epu32(state[0], next, 0);
        state[1] = _mm_sha1rnds4_epu32(state[1], state[0], 3);
        block[i & 3] = _mm_sha1msg2_epu32(_mm_sha1msg1_epu32(block[i & 3], next), state[0]);
    }
    show("sha1", state, sizeof state);
}

static void aes(void) {
    __m128i key, text;
    fill(&key, sizeof key);
    fill(&text, sizeof text);
    for (int i = 0; i < 10; i++) {
        __m128i assist = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, 0x1B), 0xFF);
        key = _mm_xor_si128(_mm_xor_si128(key, _mm_slli_si128(key, 4)), assist);
        text = _mm_aesenc_si128(text, key);
    }
    text = _mm_aesenclast_si128(text, key);
    show("aes", &text, sizeof text);
    text = _mm_aesdeclast_si128(_mm_aesdec_si128(text, _mm_aesimc_si128(key)), key);
    show("aes back", &text, sizeof text);
    text = _mm_xor_si128(_mm_clmulepi64_si128(text, key, 0x01), _mm_clmulepi64_si128(text, key, 0x10));
    show("clmul", &text, sizeof text);
}

static void bits(void) {
    uint64_t a, b, sum = 0;
    unsigned long long high;
    for (int i = 0; i < 50; i++) {
        fill(&a, sizeof a);
        fill(&b, sizeof b);
        sum += _pdep_u64(a, b) ^ _pext_u64(b, a) ^ _bzhi_u64(a, b & 63) ^ _andn_u64(a, b) ^ _blsr_u64(a);
        sum ^= _mulx_u64(a, b, &high) + high + _tzcnt_u64(a) + _lzcnt_u64(b) + __builtin_popcountll(a ^ b);
        unsigned long long out;
        sum += _addcarry_u64(a < b, a, b, &out) + out;
    }
    printf("bits         %016lx\n", sum);
}

static __attribute__((noinline)) __m256i mix(__m256i a, __m256i b) {
    a = _mm256_add_epi32(_mm256_shuffle_epi8(a, b), _mm256_mullo_epi32(a, b));
    b = _mm256_xor_si256(_mm256_permutevar8x32_epi32(b, a), _mm256_srlv_epi64(a, _mm256_set1_epi64x(7)));
    a = _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi8(a, b));
    a = _mm256_adds_epu16(_mm256_packs_epi32(a, b), _mm256_unpackhi_epi16(b, a));
    a = _mm256_sub_epi64(a, _mm256_sad_epu8(a, b));
    a = _mm256_permute2x128_si256(a, _mm256_alignr_epi8(b, a, 5), 0x21);
    return _mm256_or_si256(_mm256_madd_epi16(a, b), _mm256_slli_epi32(_mm256_abs_epi8(a), 3));
}

static int table[64] __attribute__((aligned(32)));

static void vectors(void) {
    __m256i a, b;
    fill(table, sizeof table);
    fill(&a, sizeof a);
    fill(&b, sizeof b);
    for (int i = 0; i < 40; i++) {
        __m256i index = _mm256_and_si256(a, _mm256_set1_epi32(63));
        b = _mm256_add_epi32(b, _mm256_i32gather_epi32(table, index, 4));
        _mm256_maskstore_epi32(table + (i & 31), _mm256_cmpgt_epi32(a, b), b);
        a = mix(a, b);
        if (_mm256_testz_si256(a, b))
            a = _mm256_set1_epi8(i);
        a = _mm256_inserti128_si256(a, _mm_add_epi8(_mm256_extracti128_si256(b, 1), _mm256_castsi256_si128(a)), 1);
        seed += _mm256_movemask_epi8(b);
    }
    show("avx2 a", &a, sizeof a);
    show("avx2 b", &b, sizeof b);
    show("table", table, sizeof table);
}

static volatile int handled;
static void handler(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    __m256i a = _mm256_set1_epi32(0x55aa), b = _mm256_set1_epi32(++handled);
    for (int i = 0; i < 5; i++)
        a = mix(a, b);
    _mm256_zeroall();
}

/* Nothing but the signal frame can bring the upper halves back. */
static void signals(void) {
    unsigned char before[32], after[32];
    fill(before, sizeof before);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    __asm__ volatile("vmovdqu %1, %%ymm7\n mov $39, %%eax\n syscall\n mov %%eax, %%edi\n mov $10, %%esi\n mov $62, %%eax\n"
                     "syscall\n vmovdqu %%ymm7, %0\n"
                     : "=m"(after)
                     : "m"(before)
                     : "rax", "rdi", "rsi", "rcx", "r11", "ymm7", "memory");
    printf("signal       handled %d, kept %d\n", handled, !memcmp(before, after, sizeof before));
}

/* VEX.128 has a source of its own and clears the upper half; SSE does neither. */
static void halves(void) {
    unsigned char out[3][32];
    __asm__ volatile("vpcmpeqd %%ymm1, %%ymm1, %%ymm1\n vpcmpeqd %%ymm2, %%ymm2, %%ymm2\n vpxor %%xmm0, %%xmm0, %%xmm0\n"
                     "vpaddb %%xmm1, %%xmm2, %%xmm3\n pxor %%xmm2, %%xmm2\n vmovdqu %%ymm2, %0\n vmovdqu %%ymm3, %1\n"
                     "vzeroupper\n vmovdqu %%ymm1, %2\n"
                     : "=m"(out[0]), "=m"(out[1]), "=m"(out[2])
                     :
                     : "ymm0", "ymm1", "ymm2", "ymm3", "memory");
    show("sse", out[0], 32);
    show("vex.128", out[1], 32);
    show("zeroupper", out[2], 32);
}

static void floats(void) {
    volatile double x = 1.0, y = 3.0;
    double sum = 0;
    float half = 0;
    for (int i = 1; i < 60; i++) {
        sum += (x / i - y * i) / (i + 0.5);
        sum = __builtin_fma(sum, 0.999, x);
        half += _cvtsh_ss(_cvtss_sh((float)sum / i, 0));
    }
    __m256d a = _mm256_set_pd(sum, x / y, y, -x), b = _mm256_hadd_pd(_mm256_sqrt_pd(_mm256_mul_pd(a, a)), a);
    __m128i whole = _mm256_cvtpd_epi32(_mm256_round_pd(b, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
    b = _mm256_max_pd(_mm256_blendv_pd(a, b, _mm256_cmp_pd(a, b, _CMP_LT_OQ)), _mm256_div_pd(b, a));
    show("doubles", &b, sizeof b);
    show("whole", &whole, sizeof whole);
    printf("float        %.17g %.9g %ld\n", sum, half, (long)(sum * 1000));
}

static void *thread(void *argument) {
    __m256i a = _mm256_set1_epi32((int)(intptr_t)argument), b = _mm256_set1_epi8(3);
    for (int i = 0; i < 60; i++)
        a = mix(a, b);
    int *result = malloc(32);
    _mm256_storeu_si256((__m256i *)result, a);
    return result;
}

int main(void) {
    sha();
    aes();
    bits();
    vectors();
    floats();
    halves();
    signals();
    pthread_t threads[3];
    for (intptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, thread, (void *)(i + 7));
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        show("thread", result, 32);
    }
    return 0;
}
