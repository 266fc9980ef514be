"""Which legacy instructions exist, and the CPUID features they need (Intel SDM 2, AMD APM 3-5).

The notation is described in `opcodes`.
"""

ONE_BYTE = """
00-05,08-0D,10-15,18-1D,20-25,28-2D,30-35,38-3D,50-5F,63,68-81,83-8B,90-99,9B-C3,C8-CD,CF-D3,D7,E0-E9,EB-EF,F1,F4-FD:
    *
8C: /0|/1|/2|/3|/4|/5 *
8D: mem *
8E: /0|/2|/3|/4|/5 *
8F: /0 *
C6-C7: /0 *; /7 reg :0 rtm
D8,DC: fpu
D9: mem /0|/2|/3|/4|/5|/6|/7 fpu; reg /0|/1|/3|/6|/7 fpu; reg /2 :0 fpu; reg /4 :0|:1|:4|:5 fpu; reg /5
    :0|:1|:2|:3|:4|:5|:6 fpu
DA: mem fpu; reg /0|/1|/2|/3 fpu+cmov; reg /5 :1 fpu
DB: mem /0|/2|/3|/5|/7 fpu; mem /1 fpu+pni; reg /0|/1|/2|/3|/5|/6 fpu+cmov; reg /4 :0|:1|:2|:3|:4 fpu
DD: mem /0|/2|/3|/4|/6|/7 fpu; mem /1 fpu+pni; reg /0|/1|/2|/3|/4|/5 fpu
DE: mem fpu; reg /0|/1|/2|/4|/5|/6|/7 fpu; reg /3 :1 fpu
DF: mem /0|/2|/3|/4|/5|/6|/7 fpu; mem /1 fpu+pni; reg /0|/1|/2|/3 fpu; reg /4 :0 fpu; reg /5|/6 fpu+cmov
FE: /0|/1 *
FF: /0|/1|/2|/4|/6 *; /3|/5 mem *
"""
TWO_BYTE = """
00: np|66|F3 /0|/1|/2|/3|/4|/5 *; F2 /0|/1|/2|/3|/4|/5 *; F2 /6 lkgs
01: mem /0|/1|/2|/3|/4|/6|/7 *; mem /5 F3 user_shstk; reg /0 np :0 sgx; reg /0 np :1|:2|:3|:4 vmx; reg /0 np :5
    pconfig; reg /0 np :6 wrmsrns; reg /0 np :7 tse; reg /0 F3|F2 :6 msrlist; reg /1 np :0|:1 monitor; reg /1 np :2|:3
    smap; reg /1 np :7 sgx; reg /1 66 :4|:5|:6|:7 tdx; reg /1 F3|F2 :2 fred; reg /2 np :0|:1 xsave; reg /2 np :4 vmx;
    reg /2 np :5|:6 rtm; reg /2 np :7 sgx; reg /3 np|66 svm; reg /3 F3|F2 :0|:2|:3|:4|:5|:6|:7 svm; reg /3 F3|F2 :1
    sev_es; reg /4|/6 *; reg /5 np :0 serialize; reg /5 np :6|:7 pku; reg /5 F3 :0|:2 user_shstk; reg /5 F3
    :4|:5|:6|:7 uintr; reg /5 F2 :0|:1 tsxldtrk; reg /7 np :0 *; reg /7 np :1 rdtscp; reg /7 np :2|:3 mwaitx; reg /7
    np :4 clzero; reg /7 np :5 rdpru; reg /7 np :6|:7 invlpgb; reg /7 66 :0 *; reg /7 66 :1 rdtscp; reg /7 66 :4
    clzero; reg /7 F3 :0 *; reg /7 F3 :1 rdtscp; reg /7 F3 :2 mcommit; reg /7 F3 :4 clzero; reg /7 F3 :5 rmpquery; reg
    /7 F3 :6|:7 sev_snp; reg /7 F2 :0 *; reg /7 F2 :1 rdtscp; reg /7 F2 :4 clzero; reg /7 F2 :6|:7 sev_snp
02-03,06,08,0B,18-19,1C-1D,1F,21,23,33,80-A5,A8-AD,AF-B1,B3,B6-B7,B9,BB,BE-C1,C8-CF,FF: *
05,07: syscall
09: np|66|F2 *; F3 wbnoinvd
0D: mem /0|/1|/3|/4|/5|/6|/7 3dnowprefetch; mem /2 prefetchwt1; reg *
0E-0F: 3dnow
10-11,2A,2C-2D,51,58-59,5C-5F,C2: np|F3 sse; 66|F2 sse2
12: np sse; 66 mem sse2; F3|F2 pni
13,17,E7: np mem sse; 66 mem sse2
14-15,28-29,2E-2F,54-57,C4,C6,DA,DE,E0,E3-E4,EA,EE,F6: np sse; 66 sse2
16: np sse; 66 mem sse2; F3 pni
1A: mem /0|/1|/2|/3 mpx; reg np *; reg 66 /0|/1|/2|/3 :0|:1|:2|:3 mpx; reg F3|F2 /0|/1|/2|/3 mpx
1B: mem /0|/1|/2|/3 mpx; reg np|F3 *; reg 66 /0|/1|/2|/3 :0|:1|:2|:3 mpx; reg F2 /0|/1|/2|/3 mpx
1E: np|66|F2 *; F3 mem *; F3 reg /0|/2|/3|/4|/5|/6|/7 *; F3 reg /1 user_shstk
20,22: /0|/2|/3|/4 *
2B: np mem sse; 66 mem sse2; F3|F2 mem sse4a
30,32: msr
31: tsc
34-35: sep
37: np smx
40-4F: cmov
50,C5,D7,F7: np reg sse; 66 reg sse2
52-53: np|F3 sse
5A: sse2
5B: np|66|F3 sse2
60-6B,6E,74-76,D1-D5,D8-D9,DB-DD,DF,E1-E2,E5,E8-E9,EB-ED,EF,F1-F3,F5,F8-FA,FC-FE: np mmx; 66 sse2
6C-6D: 66 sse2
6F,7E-7F: np mmx; 66|F3 sse2
70: np sse; 66|F3|F2 sse2
71-72: np reg /2|/4|/6 mmx; 66 reg /2|/4|/6 sse2
73: np reg /2|/6 mmx; 66 reg /2|/3|/6|/7 sse2
77: np mmx
78: np vmx; 66 reg /0 sse4a; F2 reg sse4a
79: np vmx; 66|F2 reg sse4a
7C-7D,D0: 66|F2 pni
A6: F3 reg /1|/2|/3|/4 padlock_phe; F3 reg /5 padlock_gmi; F3 reg /6|/7 padlock_undoc
A7: reg /0 padlock_rng; reg /1|/2|/3|/4|/5 F3 padlock_ace; reg /6 F3 padlock_gmi; reg /7 F3 padlock_rng
AE: mem np /0|/1 fxsr; mem np /2|/3 sse; mem np /4|/5 xsave; mem np /6 xsaveopt; mem np /7 clflush; mem 66 /6 clwb;
    mem 66 /7 clflushopt; mem F3 /4 ptwrite; mem F3 /6 user_shstk; reg np /5|/6 sse2; reg np /7 sse; reg 66|F2 /6
    waitpkg; reg F3 /0|/1|/2|/3 fsgsbase; reg F3 /4 ptwrite; reg F3 /5 user_shstk; reg F3 /6 waitpkg
B2,B4-B5: mem *
B8: F3 popcnt
BA: /4|/5|/6|/7 *
BC: np|66|F2 *; F3 bmi1
BD: np|66|F2 *; F3 abm
C3: np mem sse2
C7: mem /1 W0 cx8; mem /1 W1 cx16; mem /3|/5 np xsaves; mem /4 np xsavec; mem /6 np|66|F3 vmx; mem /7 np vmx; reg /6
    np|66 rdrand; reg /6 F3 uintr; reg /7 np|66 rdseed; reg /7 F3 rdpid
D6: 66 sse2; F3|F2 reg sse2
E6: 66|F3|F2 sse2
F0: F2 mem pni
F4,FB: np|66 sse2
"""
MAP_0F38 = """
00-0B,1C-1E: np|66 ssse3
10,14-15,17,20-25,28-29,2B,30-35,38-41: 66 sse4_1
2A: 66 mem sse4_1
37: 66 sse4_2
80: 66 mem ept
81: 66 mem vpid
82: 66 mem invpcid
C8-CD: np sha_ni
CF: 66 gfni
D8: F3 mem /0|/1|/2|/3 wide_kl
DB: 66 aes
DC: 66 aes; F3 mem aeskle; F3 reg kl
DD-DF: 66 aes; F3 mem aeskle
F0-F1: np|66 mem movbe; F2 sse4_2
F5: 66 mem user_shstk
F6: np mem user_shstk; 66|F3 adx
F8: 66 mem movdir64b; F3|F2 mem enqcmd
F9: np mem movdiri
FA-FB: F3 reg aeskle
FC: mem rao_int
"""
MAP_0F3A = """
08-0E,14-17,20-22,40-42: 66 sse4_1
0F: np|66 ssse3
44: 66 pclmulqdq
60-63: 66 sse4_2
CC: np sha_ni
CE-CF: 66 gfni
DF: 66 aes
F0: F3 reg /0 :0 hreset
"""
