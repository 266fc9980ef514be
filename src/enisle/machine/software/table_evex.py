"""Which EVEX instructions exist, and the CPUID features they need (Intel SDM 2, AMD APM 3-5).

The notation is described in `opcodes`. None of them is executed in software.
"""

EVEX_0F = """
10-11: np W0 VL avx512f; 66 W1 VL avx512f; F3 W0 L0|L1|L2 avx512f; F2 W1 L0|L1|L2 avx512f
12: np W0 L0 avx512f; 66 W1 L0 mem avx512f; F3 W0 VL avx512f; F2 W1 VL avx512f
13,17: np L0 mem W0 avx512f; 66 L0 mem W1 avx512f
14-15,28-29,C6: np W0 VL avx512f; 66 W1 VL avx512f
16: np W0 L0 avx512f; 66 W1 L0 mem avx512f; F3 W0 VL avx512f
2A,2C-2D: F3|F2 L0|L1|L2 avx512f; F3|F2 L3 reg avx512f
2B: np VL mem W0 avx512f; 66 VL mem W1 avx512f
2E-2F: np mem L0|L1|L2 W0 avx512f; np reg W0 avx512f; 66 mem L0|L1|L2 W1 avx512f; 66 reg W1 avx512f
51,58-5A,5C-5F,C2: L0|L1 np W0 avx512f+avx512vl; L0|L1 66 W1 avx512f+avx512vl; L0|L1 F3 W0 avx512f; L0|L1 F2 W1
    avx512f; L2 np|F3 W0 avx512f; L2 66|F2 W1 avx512f; L3 np|F3 W0 reg avx512f; L3 66|F2 W1 reg avx512f
54-57: np W0 VL avx512dq; 66 W1 VL avx512dq
5B: W0 np|66|F3 VL avx512f; W0 np|66|F3 L3 reg avx512f; W1 np VL avx512dq; W1 np L3 reg avx512dq
60-61,63-65,67-69,74-75,D1,D5,D8-DA,DC-DE,E0-E1,E3-E5,E8-EA,EC-EE,F1,F5-F6,F8-F9,FC-FD: 66 VL avx512bw
62,66,6A,76,D2,F2,FA,FE: 66 W0 VL avx512f
6B: 66 W0 VL avx512bw
6C-6D,D3-D4,F3-F4,FB: 66 W1 VL avx512f
6E: 66 L0 avx512f
6F,7F: 66|F3 VL avx512f; F2 VL avx512bw
70: 66 W0 VL avx512f; F3|F2 VL avx512bw
71: 66 /2|/4|/6 VL avx512bw
72: VL 66 /0|/1|/4 avx512f; VL 66 /2|/6 W0 avx512f
73: VL 66 /2|/6 W1 avx512f; VL 66 /3|/7 avx512bw
78-79: L0|L1 np avx512f+avx512vl; VL 66 avx512dq; L0|L1 F3|F2 avx512f; L2 np|F3|F2 avx512f; L3 np|F3|F2 reg avx512f;
    L3 66 reg avx512dq
7A: 66 VL avx512dq; 66 L3 reg avx512dq; F3|F2 W0 VL avx512f; F3|F2 W0 L3 reg avx512f; F3|F2 W1 VL avx512dq; F3|F2 W1
    L3 reg avx512dq
7B: 66 VL avx512dq; 66 L3 reg avx512dq; F3|F2 L0|L1|L2 avx512f; F3|F2 L3 reg avx512f
7E: 66 L0 avx512f; F3 W1 L0 avx512f
C4: 66 L0 avx512bw
C5: 66 L0 reg avx512bw
D6: 66 W1 L0 avx512f
DB,DF,E2,EB,EF: 66 VL avx512f
E6: 66|F2 W1 VL avx512f; 66|F2 W1 L3 reg avx512f; F3 W0 VL avx512f; F3 W0 L3 reg avx512f; F3 W1 VL avx512dq; F3 W1 L3
    reg avx512dq
E7: 66 VL mem W0 avx512f
"""
EVEX_0F38 = """
00,04,0B,1C-1D,3C,3E,66: 66 VL avx512bw
0C,18,1E,58: 66 W0 VL avx512f
0D,1F,37: 66 W1 VL avx512f
10: 66 W1 VL avx512bw; F3 W0 VL avx512bw
11-12: 66 W1 VL avx512bw; F3 W0 VL avx512f
13: VL 66|F3 W0 avx512f; L3 66 W0 reg avx512f
14-15,21-24,31-34: 66 VL avx512f; F3 W0 VL avx512f
16,36: 66 VL1 avx512f
19: 66 W0 VL1 avx512dq; 66 W1 VL1 avx512f
1A,5A: 66 VL1 mem W0 avx512f; 66 VL1 mem W1 avx512dq
1B,5B: 66 L2 mem W0 avx512dq; 66 L2 mem W1 avx512f
20,30: 66 VL avx512bw; F3 W0 VL avx512bw
25,35: 66|F3 W0 VL avx512f
26: 66|F3 VL avx512bw
27: 66|F3 VL avx512f
28-29: 66 W1 VL avx512f; F3 VL reg avx512bw
2A: 66 VL mem W0 avx512f; F3 VL reg W1 avx512cd
2B,78-79: 66 W0 VL avx512bw
2C,42,96-98,9C,9E,A6-A8,AC,AE,B6-B8,BA,BC,BE: 66 VL avx512f; 66 L3 reg avx512f
2D,43,99,9D,9F,A9,AD,AF,B9,BB,BD,BF: 66 L0|L1|L2 avx512f; 66 L3 reg avx512f
38: 66 VL avx512bw; F3 VL reg avx512dq
39: 66 VL avx512f; F3 VL reg avx512dq
3A: 66 VL avx512bw; F3 VL reg W0 avx512cd
3B,3D,3F,45-47,4C,4E,64-65,76-77,7E-7F,88-8B: 66 VL avx512f
40: 66 W0 VL avx512f; 66 W1 VL avx512dq
44,C4: 66 VL avx512cd
4D,4F: 66 L0|L1|L2 avx512f
50-51: 66 W0 VL avx512_vnni
52: 66 W0 VL avx512_vnni; F3 W0 VL avx512_bf16; F2 W0 L2 mem avx512_4vnniw
53: 66 W0 VL avx512_vnni; F2 W0 L2 mem avx512_4vnniw
54: 66 VL avx512_bitalg
55: 66 VL avx512_vpopcntdq
59: 66 W0 VL avx512dq; 66 W1 VL avx512f
62-63,71,73: 66 VL avx512_vbmi2
68: F2 VL avx512_vp2intersect
70: 66 W1 VL avx512_vbmi2
72: 66 W1 VL avx512_vbmi2; F3|F2 W0 VL avx512_bf16
75,7D,8D: 66 W0 VL avx512vbmi; 66 W1 VL avx512bw
7A-7B: 66 VL reg W0 avx512bw
7C: 66 VL reg avx512f
83: 66 W1 VL avx512vbmi
8F: 66 W0 VL avx512_bitalg
90-93,A0-A3: 66 VL mem :4 avx512f
9A,AA: 66 VL avx512f; 66 L3 reg avx512f; F2 L2 mem W0 avx512_4fmaps
9B,AB: 66 L0|L1|L2 avx512f; 66 L3 reg avx512f; F2 L0|L1|L2 mem W0 avx512_4fmaps
B4-B5: 66 W1 VL avx512ifma
C6-C7: 66 L2 mem /1|/2|/5|/6 :4 avx512pf
C8,CA,CC: 66 L0|L1|L3 reg avx512er; 66 L2 avx512er
CB,CD: 66 L0|L1|L2 avx512er; 66 L3 reg avx512er
CF: 66 W0 VL gfni
DC-DF: 66 VL vaes
"""
EVEX_0F3A = """
00-01: 66 W1 VL1 avx512f
03,1E-1F,25: 66 VL avx512f
04: 66 W0 VL avx512f
05: 66 W1 VL avx512f
08: np W0 VL avx512_fp16; np W0 L3 reg avx512_fp16; 66 W0 VL avx512f; 66 W0 L3 reg avx512f
09: 66 W1 VL avx512f; 66 W1 L3 reg avx512f
0A: np mem L0|L1|L2 W0 avx512_fp16; np reg W0 avx512_fp16; 66 mem L0|L1|L2 W0 avx512f; 66 reg W0 avx512f
0B: 66 mem L0|L1|L2 W1 avx512f; 66 reg W1 avx512f
0F,3E-3F: 66 VL avx512bw
14-15,20: 66 L0 avx512bw
16,22: 66 L0 avx512dq
17: 66 L0 avx512f
18-19,38-39: 66 W0 VL1 avx512f; 66 W1 VL1 avx512dq
1A-1B,3A-3B: 66 W0 L2 avx512dq; 66 W1 L2 avx512f
1D: 66 W0 VL avx512f; 66 W0 L3 reg avx512f
21: 66 W0 L0 avx512f
23,43: 66 VL1 avx512f
26: np W0 VL avx512_fp16; np W0 L3 reg avx512_fp16; 66 VL avx512f; 66 L3 reg avx512f
27: np mem L0|L1|L2 W0 avx512_fp16; np reg W0 avx512_fp16; 66 mem L0|L1|L2 avx512f; 66 reg avx512f
42: 66 W0 VL avx512bw
44: 66 VL vpclmulqdq
50: 66 VL avx512dq; 66 L3 reg avx512dq
51: 66 L0|L1|L2 avx512dq; 66 L3 reg avx512dq
54: 66 VL avx512f; 66 L3 reg avx512f
55: 66 L0|L1|L2 avx512f; 66 L3 reg avx512f
56: np W0 VL avx512_fp16; np W0 L3 reg avx512_fp16; 66 VL avx512dq; 66 L3 reg avx512dq
57: np mem L0|L1|L2 W0 avx512_fp16; np reg W0 avx512_fp16; 66 mem L0|L1|L2 avx512dq; 66 reg avx512dq
66: np W0 VL avx512_fp16; 66 VL avx512dq
67: np W0 L0|L1|L2 avx512_fp16; 66 L0|L1|L2 avx512dq
70,72: 66 W1 VL avx512_vbmi2
71,73: 66 VL avx512_vbmi2
C2: L0|L1 np W0 avx512_fp16+avx512vl; L0|L1 F3 W0 avx512_fp16; L2 np|F3 W0 avx512_fp16; L3 np|F3 W0 reg avx512_fp16
CE-CF: 66 W1 VL gfni
"""
EVEX_5 = """
10-11: F3 W0 L0|L1|L2 avx512_fp16
1D: L0|L1 np W0 avx512_fp16; L0|L1 66 W0 avx512_fp16+avx512vl; L2 np|66 W0 avx512_fp16; L3 np|66 W0 reg avx512_fp16
2A,2C-2D: F3 L0|L1|L2 avx512_fp16; F3 L3 reg avx512_fp16
2E-2F: np mem L0|L1|L2 W0 avx512_fp16; np reg W0 avx512_fp16
51,58-59,5C-5F: L0|L1 np W0 avx512_fp16+avx512vl; L0|L1 F3 W0 avx512_fp16; L2 np|F3 W0 avx512_fp16; L3 np|F3 W0 reg
    avx512_fp16
5A: L0|L1 np W0 avx512_fp16+avx512vl; L0|L1 66 W1 avx512_fp16+avx512vl; L0|L1 F3 W0 avx512_fp16; L0|L1 F2 W1
    avx512_fp16; L2 np|F3 W0 avx512_fp16; L2 66|F2 W1 avx512_fp16; L3 np|F3 W0 reg avx512_fp16; L3 66|F2 W1 reg
    avx512_fp16
5B: np VL avx512_fp16; np L3 reg avx512_fp16; 66|F3 W0 VL avx512_fp16; 66|F3 W0 L3 reg avx512_fp16
6E,7E: 66 L0 avx512_fp16
78-79: np|66 W0 VL avx512_fp16; np|66 W0 L3 reg avx512_fp16; F3 L0|L1|L2 avx512_fp16; F3 L3 reg avx512_fp16
7A: 66 W0 VL avx512_fp16; 66 W0 L3 reg avx512_fp16; F2 VL avx512_fp16; F2 L3 reg avx512_fp16
7B: 66 W0 VL avx512_fp16; 66 W0 L3 reg avx512_fp16; F3 L0|L1|L2 avx512_fp16; F3 L3 reg avx512_fp16
7C: np|66 W0 VL avx512_fp16; np|66 W0 L3 reg avx512_fp16
7D: W0 VL avx512_fp16; W0 L3 reg avx512_fp16
"""
EVEX_6 = """
13: L0|L1 np W0 avx512_fp16; L0|L1 66 W0 avx512_fp16+avx512vl; L2 np|66 W0 avx512_fp16; L3 np|66 W0 reg avx512_fp16
2C,42,96-98,9A,9C,9E,A6-A8,AA,AC,AE,B6-B8,BA,BC,BE: 66 W0 VL avx512_fp16; 66 W0 L3 reg avx512_fp16
2D,43,99,9B,9D,9F,A9,AB,AD,AF,B9,BB,BD,BF: 66 mem L0|L1|L2 W0 avx512_fp16; 66 reg W0 avx512_fp16
4C,4E: 66 W0 VL avx512_fp16
4D,4F: 66 W0 L0|L1|L2 avx512_fp16
56,D6: F3|F2 W0 VL avx512_fp16; F3|F2 reg L3 W0 avx512_fp16
57,D7: F3|F2 mem L0|L1|L2 W0 avx512_fp16; F3|F2 reg /1|/2|/3|/4|/5|/6|/7 W0 avx512_fp16
"""
