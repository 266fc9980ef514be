"""Features of x86-64 processors as CPUID tells them: name, place, what each needs, and what Linux prints.

Names are those of Linux's cpufeatures.h (6.1); one that /proc/cpuinfo does not print has a dot before it in the table
and none in its name. Places: Intel SDM 2A "CPUID", AMD APM 3 appendix E. Features of the XSAVE area (SDM 1 13.1) are
`xcr0_…`: bits of CPUID leaf 0xD. Data only.
"""

from enisle.records import Record

EAX, EBX, ECX, EDX = range(4)
REGISTERS = ("eax", "ebx", "ecx", "edx")
Register = tuple[int, int, int]
"""Leaf, subleaf, index of the register."""
U32 = 0xFFFF_FFFF


class Feature(Record):
    """One bit of CPUID with a name."""

    name: str
    leaf: int
    subleaf: int
    register: int
    bit: int
    printed: bool
    """Whether Linux prints it in the flags of /proc/cpuinfo."""

    @property
    def place(self) -> Register:
        return self.leaf, self.subleaf, self.register


# Each row: leaf, subleaf, register, and the names of bits 0 to 31; `-` has no name.
_ROWS = """
1 0 edx fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe
1 0 ecx pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave .osxsave avx f16c rdrand hypervisor
6 0 eax dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req - - - - - - - hfi
6 0 ecx aperfmperf - - epb
7 0 ebx fsgsbase tsc_adjust sgx bmi1 hle avx2 .fdp_excptn_only smep bmi2 erms invpcid rtm cqm .zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl
7 0 ecx .prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 .shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid .kl bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc .pks
7 0 edx - .sgx_keys avx512_4vnniw avx512_4fmaps fsrm .uintr - - avx512_vp2intersect .srbds_ctrl md_clear .rtm_always_abort - .tsx_force_abort serialize .hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 .spec_ctrl .intel_stibp flush_l1d arch_capabilities .core_capabilities .spec_ctrl_ssbd
7 1 eax .sha512 .sm3 .sm4 .rao_int avx_vnni avx512_bf16 .lass .cmpccxadd .arch_perfmon_ext - .fzrm .fsrs .fsrc - - - - .fred .lkgs .wrmsrns - .amx_fp16 .hreset .avx_ifma - - .lam
7 1 edx - - - - .avx_vnni_int8 .avx_ne_convert - - .amx_complex - .avx_vnni_int16 - - - .prefetchiti - - - - .avx10 - .apx_f
13 0 eax .xcr0_x87 .xcr0_sse .xcr0_ymm .xcr0_bndregs .xcr0_bndcsr .xcr0_opmask .xcr0_zmm_hi256 .xcr0_hi16_zmm - .xcr0_pkru - - - - - - - .xcr0_tilecfg .xcr0_tiledata .xcr0_apx
13 1 eax xsaveopt xsavec xgetbv1 xsaves .xfd
2147483649 0 edx - - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow
2147483649 0 ecx lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx .addr_mask_ext
2147483655 0 ebx overflow_recov succor - smca
2147483655 0 edx - - - - - - - hw_pstate .invtsc cpb - proc_feedback - - rapl
2147483656 0 ebx clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - .amd_ibpb - .amd_ibrs .amd_stibp - .amd_stibp_always_on - - - - - amd_ppin .amd_ssbd virt_ssbd .amd_ssb_no cppc .amd_psfd .btc_no - brs
2147483658 0 edx npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - pfthreshold avic - v_vmsave_vmload vgif - x2avic - v_spec_ctrl - - - - vnmi - - .svme_addr_chk
2147483681 0 eax .no_nested_data_bp .fsgs_nonserializing .lfence_rdtsc - - - .null_sel_clr_base .upper_addr_ignore .autoibrs .no_smm_ctl_msr - - - - - - - - - - - - - - - - - .sbpb .ibpb_brtype .srso_no
2147483682 0 eax perfmon_v2
"""  # noqa: E501 - rows of 32 names


def _read() -> dict[str, Feature]:
    features: dict[str, Feature] = {}
    for row in _ROWS.strip().splitlines():
        leaf, subleaf, register, *names = row.split()
        for bit, name in enumerate(names):
            if name != "-":
                plain = name.removeprefix(".")
                place = (int(leaf), int(subleaf), REGISTERS.index(register), bit)
                features[plain] = Feature(plain, *place, printed=plain == name)
    return features


FEATURES = _read()
NAMES = frozenset(FEATURES)
ALIASES = 0x0183_F3FF
"""Bits of leaf 0x80000001 EDX that repeat those of leaf 1 EDX on AMD processors (APM 3 E.4.2)."""
LEAF_1_EDX: Register = (1, 0, EDX)
ALIAS_REGISTER: Register = (0x8000_0001, 0, EDX)


def _places() -> dict[Register, dict[int, str]]:
    places: dict[Register, dict[int, str]] = {}
    for feature in FEATURES.values():
        places.setdefault(feature.place, {})[feature.bit] = feature.name
    for bit in range(32):
        if ALIASES >> bit & 1:
            places[ALIAS_REGISTER][bit] = places[LEAF_1_EDX][bit]
    return places


BITS = _places()
"""The names of the bits of each register that holds features."""

# What a feature needs to be of use: Linux arch/x86/kernel/cpu/cpuid-deps.c, SDM 1 chapters 13 to 18. State and
# instructions need each other: a component of XCR0 without its instructions would only cost room in every frame.
_NEEDS = """
sse: fxsr | sse2: sse | pni: sse2 | ssse3: sse2 | sse4_1: sse2 | sse4_2: sse4_1 | sse4a: sse2 | misalignsse: sse
fxsr_opt: fxsr | mmxext: mmx | 3dnow: mmx | 3dnowext: 3dnow | aes: sse2 | pclmulqdq: sse2 | sha_ni: sse2 | gfni: sse2
xsave: fxsr | osxsave: xsave xcr0_x87 xcr0_sse | xcr0_x87: osxsave | xcr0_sse: osxsave sse
xsaveopt: osxsave | xsavec: osxsave | xgetbv1: osxsave | xsaves: xsavec | xfd: xsaves | xsaveerptr: fxsr
avx: osxsave xcr0_ymm sse2 | xcr0_ymm: avx | f16c: avx | fma: avx | avx2: avx | xop: avx | fma4: avx
vaes: avx aes | vpclmulqdq: avx pclmulqdq | avx_vnni: avx2 | avx_ifma: avx2 | avx_vnni_int8: avx2 | avx_vnni_int16: avx2
avx_ne_convert: avx2 | sha512: avx2 | sm3: avx | sm4: avx2
avx512f: avx2 xcr0_opmask xcr0_zmm_hi256 xcr0_hi16_zmm
xcr0_opmask: avx512f | xcr0_zmm_hi256: avx512f | xcr0_hi16_zmm: avx512f
avx512cd: avx512f | avx512er: avx512f | avx512pf: avx512f | avx512dq: avx512f | avx512bw: avx512f | avx512vl: avx512f
avx512ifma: avx512f | avx512vbmi: avx512bw | avx512_vbmi2: avx512bw | avx512_vnni: avx512f | avx512_bitalg: avx512bw
avx512_vpopcntdq: avx512f | avx512_4vnniw: avx512f | avx512_4fmaps: avx512f | avx512_vp2intersect: avx512f
avx512_bf16: avx512vl | avx512_fp16: avx512bw | avx10: avx512vl
mpx: osxsave xcr0_bndregs xcr0_bndcsr | xcr0_bndregs: mpx | xcr0_bndcsr: mpx
pku: osxsave xcr0_pkru | ospke: pku | xcr0_pkru: pku
amx_tile: osxsave xcr0_tilecfg xcr0_tiledata | xcr0_tilecfg: amx_tile | xcr0_tiledata: amx_tile
amx_bf16: amx_tile | amx_int8: amx_tile | amx_fp16: amx_tile | amx_complex: amx_tile | apx_f: osxsave xcr0_apx
xcr0_apx: apx_f | rdtscp: tsc | invtsc: tsc | tsc_adjust: tsc | tsc_deadline_timer: tsc | enqcmd: xsaves
sgx_lc: sgx | tsxldtrk: rtm | lm: sse2 | lahf_lm: lm
"""
SVM_LEAF = 0x8000_000A


def _requires() -> dict[str, frozenset[str]]:
    parts = (part.partition(":") for part in _NEEDS.replace("\n", "|").split("|") if part.strip())
    needs = {name.strip(): frozenset(words.split()) for name, _, words in parts}
    return needs | {name: frozenset({"svm"}) for name, feature in FEATURES.items() if feature.leaf == SVM_LEAF}


REQUIRES = _requires()
"""What each feature needs directly."""


def _dependents() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, needs in REQUIRES.items():
        for needed in needs:
            found.setdefault(needed, set()).add(name)
    return {name: frozenset(others) for name, others in found.items()}


DEPENDENTS = _dependents()
"""Which features need each directly."""

# XCR0 components: name of the feature, and offset and size in the standard format (SDM 1 13.4.3 and the processors of
# Intel) for those that the processor at hand does not tell.
XCR0_BITS = {FEATURES[name].bit: name for name in FEATURES if name.startswith("xcr0_")}
XSAVE_LEAF = 0xD
XSAVE_LEGACY_SIZE = 576
"""Bytes of the legacy region and the header (SDM 1 13.4)."""
STANDARD_LAYOUT = {
    2: (576, 256),
    3: (960, 64),
    4: (1024, 64),
    5: (1088, 64),
    6: (1152, 512),
    7: (1664, 1024),
    9: (2688, 8),
    17: (2752, 64),
    18: (2816, 8192),
    19: (960, 128),
}

GATES: dict[int, tuple[str, ...]] = {
    0x5: ("monitor", "mwaitx"),
    0x9: ("dca",),
    0xD: ("xsave",),
    0xF: ("cqm",),
    0x10: ("rdt_a",),
    0x12: ("sgx",),
    0x14: ("intel_pt",),
    0x19: ("kl",),
    0x1B: ("pconfig",),
    0x1C: ("arch_lbr",),
    0x1D: ("amx_tile",),
    0x1E: ("amx_tile",),
    0x20: ("hreset",),
    0x23: ("arch_perfmon_ext",),
    0x24: ("avx10",),
    0x8000_000A: ("svm",),
    0x8000_001B: ("ibs",),
    0x8000_001C: ("lwp",),
    0x8000_001D: ("topoext",),
    0x8000_001E: ("topoext",),
    0x8000_0022: ("perfmon_v2",),
}
"""Leaves that describe features: of no meaning without one of them."""
KNOWN_LEAVES = frozenset((
    *(0, 1, 2, 4, 5, 6, 7, 0xA, 0xB, 0xD, 0x15, 0x16, 0x1F, *GATES, *range(0x8000_0000, 0x8000_0009)),
    *(0x8000_0019, 0x8000_001A, 0x8000_0021),
))  # fmt: skip
"""Leaves that are understood here; others a strict value hides."""

# elf(5), linux/arch/x86/include/uapi/asm/hwcap2.h
HWCAP2_FSGSBASE = 1 << 1

# Flags that Linux computes from others on every x86-64 processor (arch/x86/kernel/cpu/{common,intel,amd}.c).
SYNTHETIC: dict[str, tuple[str, ...]] = {
    "constant_tsc": ("invtsc",),
    "nonstop_tsc": ("invtsc",),
    "nopl": ("lm",),
    "cpuid": ("lm",),
    "rep_good": ("lm",),
}


def closed(features: frozenset[str]) -> frozenset[str]:
    """Return the largest part of `features` in which everything has what it needs."""
    kept = set(features)
    doubtful = [name for name in kept if not REQUIRES.get(name, frozenset()) <= kept]
    while doubtful:
        name = doubtful.pop()
        if name in kept and not REQUIRES.get(name, frozenset()) <= kept:
            kept.discard(name)
            doubtful.extend(DEPENDENTS.get(name, ()))
    return frozenset(kept)


def needs_of(name: str) -> frozenset[str]:
    """Return everything a feature needs, directly or through others."""
    found: set[str] = set()
    left = [name]
    while left:
        for needed in REQUIRES.get(left.pop(), ()):
            if needed not in found:
                found.add(needed)
                left.append(needed)
    return frozenset(found - {name})


def dependents_of(name: str) -> frozenset[str]:
    """Return everything that needs a feature, directly or through others."""
    found: set[str] = set()
    left = [name]
    while left:
        for dependent in DEPENDENTS.get(left.pop(), ()):
            if dependent not in found:
                found.add(dependent)
                left.append(dependent)
    return frozenset(found - {name})
