"""Which VEX and XOP instructions exist, and the CPUID features they need (Intel SDM 2, AMD APM 3-5).

The notation is described in `opcodes`.
"""

VEX_0F = """
10-11: V0 avx; V1 F3|F2 reg avx
12: np L0 avx; 66 L0 mem avx; F3|F2 V0 avx
13,17: np|66 L0 mem V0 avx
14-15,54-57,C6: np|66 avx
16: np L0 avx; 66 L0 mem avx; F3 V0 avx
28-29,2E-2F: np|66 V0 avx
2A: F3|F2 avx
2B: np|66 mem V0 avx
2C-2D: F3|F2 V0 avx
41-42,45-47: W0 np L1 reg avx512f; W0 66 L1 reg avx512dq; W1 np|66 L1 reg avx512bw
44,98: W0 np L0 reg V0 avx512f; W0 66 L0 reg V0 avx512dq; W1 np|66 L0 reg V0 avx512bw
4A: np|66 L1 reg W0 avx512dq; np|66 L1 reg W1 avx512bw
4B: np L1 reg avx512bw; 66 L1 reg W0 avx512f
50: np|66 reg V0 avx
51,5A: np|66 V0 avx; F3|F2 avx
52-53: np V0 avx; F3 avx
58-59,5C-5F,C2: avx
5B: np|66|F3 V0 avx
60-6D,74-76,D1-D5,D8-E5,E8-EF,F1-F6,F8-FE: 66 avx|avx2
6E,D6: 66 L0 V0 avx
6F,7F: 66|F3 V0 avx
70: 66|F3|F2 V0 avx|avx2
71-72: 66 reg /2|/4|/6 avx|avx2
73: 66 reg /2|/3|/6|/7 avx|avx2
77: np V0 avx
7C-7D,D0: 66|F2 avx
7E: 66|F3 L0 V0 avx
90: np L0 W0 V0 avx512f; np L0 W1 V0 avx512bw; 66 L0 W0 V0 avx512dq; 66 L0 W1 V0 avx512bw
91: W0 np L0 mem V0 avx512f; W0 66 L0 mem V0 avx512dq; W1 np|66 L0 mem V0 avx512bw
92-93: np L0 reg W0 V0 avx512f; 66 L0 reg W0 V0 avx512dq; F2 L0 reg V0 avx512bw
99: np|66 L0 reg W0 V0 avx512dq; np|66 L0 reg W1 V0 avx512bw
AE: np L0 mem /2|/3 V0 avx
C4: 66 L0 avx
C5,F7: 66 L0 reg V0 avx
D7: 66 reg V0 avx|avx2
E6: 66|F3|F2 V0 avx
E7: 66 mem V0 avx
F0: F2 mem V0 avx
"""
VEX_0F38 = """
00-0B,28-29,2B,37-40: 66 avx|avx2
0C-0D: 66 W0 avx
0E-0F: 66 W0 V0 avx
13: 66 W0 V0 f16c
16,36: 66 W0 L1 avx2
17: 66 V0 avx
18: 66 mem W0 V0 avx; 66 reg W0 V0 avx2
19: 66 L1 mem W0 V0 avx; 66 L1 reg W0 V0 avx2
1A: 66 L1 mem W0 V0 avx
1C-1E,20-25,30-35: 66 V0 avx|avx2
2A: 66 mem V0 avx|avx2
2C-2F: 66 mem W0 avx
41: 66 L0 V0 avx
45,47: 66 avx2
46: 66 W0 avx2
49: mem np|66 /0 L0 W0 V0 amx_tile; reg np /0 :0 L0 W0 V0 amx_tile; reg F2 :0 L0 W0 V0 amx_tile
4B: 66|F3|F2 L0 mem :4 W0 V0 amx_tile
50-51: np|F3|F2 W0 avx_vnni_int8; 66 W0 avx_vnni
52-53: 66 W0 avx_vnni
58-59,78-79: 66 W0 V0 avx2
5A: 66 L1 mem W0 V0 avx2
5C: F3 L0 reg W0 amx_bf16; F2 L0 reg W0 amx_fp16
5E: L0 reg W0 amx_int8
6C: np|66 L0 reg W0 amx_complex
72: F3 W0 V0 avx_ne_convert
8C,8E: 66 mem avx2
90-93: 66 mem :4 avx2
96-9F,A6-AF,B6-BF: 66 fma
B0: mem W0 V0 avx_ne_convert
B1: 66|F3 mem W0 V0 avx_ne_convert
B4-B5: 66 W1 avx_ifma
CB: F2 L1 reg W0 sha512+avx
CC-CD: F2 L1 reg W0 V0 sha512+avx
CF: 66 W0 gfni+avx
D2-D3: np|66|F3 W0 avx_vnni_int16
DA: np|66 W0 L0 sm3+avx; F3|F2 W0 sm4+avx
DB: 66 L0 V0 aes+avx
DC-DF: 66 L0 aes+avx; 66 L1 vaes
E0-EF: 66 L0 mem cmpccxadd
F2: np L0 bmi1
F3: np /1|/2|/3 L0 bmi1
F5: np|F3|F2 L0 bmi2
F6: F2 L0 bmi2
F7: np L0 bmi1; 66|F3|F2 L0 bmi2
"""
VEX_0F3A = """
00-01: 66 L1 W1 V0 avx2
02: 66 W0 avx2
04-05: 66 W0 V0 avx
06,18: 66 W0 L1 avx
08-09: 66 V0 avx
0A-0D,40: 66 avx
0E-0F,42: 66 avx|avx2
14-17,60-63: 66 L0 V0 avx
19: 66 L1 W0 V0 avx
1D: 66 W0 V0 f16c
20-22,41: 66 L0 avx
30,32: 66 L0 reg W0 V0 avx512dq; 66 L0 reg W1 V0 avx512f
31,33: 66 L0 reg V0 avx512bw
38,46: 66 W0 L1 avx2
39: 66 L1 W0 V0 avx2
44: 66 L0 pclmulqdq+avx; 66 L1 vpclmulqdq
48-49: 66 xop
4A-4B: 66 W0 avx
4C: 66 W0 avx|avx2
5C-5F,68-6F,78-7F: 66 fma4
CE-CF: 66 W1 gfni+avx
DE: 66 W0 L0 sm3+avx
DF: 66 L0 V0 aes+avx
F0: F2 L0 V0 bmi2
"""
XOP_8 = """
85-87,8E-8F,95-97,9E-9F,A6,B6,CC-CF,EC-EF: np W0 L0 xop
A2: np xop
A3: np L0 xop
C0-C3: np L0 W0 V0 xop
"""
XOP_9 = """
01: np /1|/2|/3|/4|/5|/6|/7 L0 tbm
02: np /1|/6 L0 tbm
12: np L0 reg /0|/1 V0 lwp
80-81: np W0 V0 xop
82-83,C1-C3,C6-C7,CB,D1-D3,D6-D7,DB,E1-E3: np L0 W0 V0 xop
90-9B: np L0 xop
"""
XOP_A = """
10: np L0 V0 tbm
12: np /0|/1 L0 lwp
"""
