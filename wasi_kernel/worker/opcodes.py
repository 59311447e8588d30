"""WebAssembly's instructions: the name of each opcode, and what follows it in the binary.

From the specification (https://webassembly.github.io/spec/core/binary/instructions.html, version
3.0), and of proposals what engines take: threads, wide arithmetic
(https://github.com/WebAssembly/threads, https://github.com/WebAssembly/wide-arithmetic), and the
exception handling of before 3.0, which compilers still write. Not garbage collection: no build of
CPython has it.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

PREFIXES = (0xFC, 0xFD, 0xFE)

TABLE = """
00 - unreachable nop
02 block block loop if
05 - else
06 block try
07 tag catch
08 tag throw
09 label rethrow
0a - throw_ref end
0c label br br_if
0e labels br_table
0f - return
10 function call
11 indirect call_indirect
12 function return_call
13 indirect return_call_indirect
14 type call_ref return_call_ref
18 label delegate
19 - catch_all drop select
1c types select
1f try_table try_table
20 local local.get local.set local.tee
23 global global.get global.set
25 table table.get table.set
28 memarg i32.load i64.load f32.load f64.load i32.load8_s i32.load8_u i32.load16_s i32.load16_u
30 memarg i64.load8_s i64.load8_u i64.load16_s i64.load16_u i64.load32_s i64.load32_u
36 memarg i32.store i64.store f32.store f64.store i32.store8 i32.store16
3c memarg i64.store8 i64.store16 i64.store32
3f memory memory.size memory.grow
41 i32 i32.const
42 i64 i64.const
43 f32 f32.const
44 f64 f64.const
45 - i32.eqz i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u i32.ge_s i32.ge_u
50 - i64.eqz i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u i64.ge_s i64.ge_u
5b - f32.eq f32.ne f32.lt f32.gt f32.le f32.ge f64.eq f64.ne f64.lt f64.gt f64.le f64.ge
67 - i32.clz i32.ctz i32.popcnt i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u
71 - i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr
79 - i64.clz i64.ctz i64.popcnt i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u
83 - i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr
8b - f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt
92 - f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign
99 - f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt
a0 - f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign
a7 - i32.wrap_i64 i32.trunc_f32_s i32.trunc_f32_u i32.trunc_f64_s i32.trunc_f64_u
ac - i64.extend_i32_s i64.extend_i32_u
ae - i64.trunc_f32_s i64.trunc_f32_u i64.trunc_f64_s i64.trunc_f64_u
b2 - f32.convert_i32_s f32.convert_i32_u f32.convert_i64_s f32.convert_i64_u f32.demote_f64
b7 - f64.convert_i32_s f64.convert_i32_u f64.convert_i64_s f64.convert_i64_u f64.promote_f32
bc - i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64
c0 - i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s
d0 heap ref.null
d1 - ref.is_null
d2 function ref.func
d3 - ref.eq ref.as_non_null
d5 label br_on_null br_on_non_null
fc:00 - i32.trunc_sat_f32_s i32.trunc_sat_f32_u i32.trunc_sat_f64_s i32.trunc_sat_f64_u
fc:04 - i64.trunc_sat_f32_s i64.trunc_sat_f32_u i64.trunc_sat_f64_s i64.trunc_sat_f64_u
fc:08 memory_init memory.init
fc:09 data data.drop
fc:0a memories memory.copy
fc:0b memory memory.fill
fc:0c table_init table.init
fc:0d element elem.drop
fc:0e tables table.copy
fc:0f table table.grow table.size table.fill
fc:13 - i64.add128 i64.sub128 i64.mul_wide_s i64.mul_wide_u
fd:00 memarg v128.load v128.load8x8_s v128.load8x8_u v128.load16x4_s v128.load16x4_u
fd:05 memarg v128.load32x2_s v128.load32x2_u v128.load8_splat v128.load16_splat v128.load32_splat
fd:0a memarg v128.load64_splat v128.store
fd:0c v128 v128.const
fd:0d lanes i8x16.shuffle
fd:0e - i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat i64x2.splat f32x4.splat f64x2.splat
fd:15 lane i8x16.extract_lane_s i8x16.extract_lane_u i8x16.replace_lane i16x8.extract_lane_s
fd:19 lane i16x8.extract_lane_u i16x8.replace_lane i32x4.extract_lane i32x4.replace_lane
fd:1d lane i64x2.extract_lane i64x2.replace_lane f32x4.extract_lane f32x4.replace_lane
fd:21 lane f64x2.extract_lane f64x2.replace_lane
fd:23 - i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u i8x16.le_s i8x16.le_u
fd:2b - i8x16.ge_s i8x16.ge_u i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u
fd:33 - i16x8.le_s i16x8.le_u i16x8.ge_s i16x8.ge_u i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u
fd:3b - i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u i32x4.ge_s i32x4.ge_u f32x4.eq f32x4.ne
fd:43 - f32x4.lt f32x4.gt f32x4.le f32x4.ge f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge
fd:4d - v128.not v128.and v128.andnot v128.or v128.xor v128.bitselect v128.any_true
fd:54 memarg_lane v128.load8_lane v128.load16_lane v128.load32_lane v128.load64_lane
fd:58 memarg_lane v128.store8_lane v128.store16_lane v128.store32_lane v128.store64_lane
fd:5c memarg v128.load32_zero v128.load64_zero
fd:5e - f32x4.demote_f64x2_zero f64x2.promote_low_f32x4 i8x16.abs i8x16.neg i8x16.popcnt
fd:63 - i8x16.all_true i8x16.bitmask i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u f32x4.ceil
fd:68 - f32x4.floor f32x4.trunc f32x4.nearest i8x16.shl i8x16.shr_s i8x16.shr_u i8x16.add
fd:6f - i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u f64x2.ceil
fd:75 - f64x2.floor i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u f64x2.trunc i8x16.avgr_u
fd:7c - i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u
fd:7e - i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u i16x8.abs i16x8.neg
fd:82 - i16x8.q15mulr_sat_s i16x8.all_true i16x8.bitmask i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u
fd:87 - i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u
fd:8a - i16x8.extend_high_i8x16_u i16x8.shl i16x8.shr_s i16x8.shr_u i16x8.add i16x8.add_sat_s
fd:90 - i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s i16x8.sub_sat_u f64x2.nearest i16x8.mul
fd:96 - i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u
fd:9b - i16x8.avgr_u i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u
fd:9f - i16x8.extmul_high_i8x16_u i32x4.abs i32x4.neg
fd:a3 - i32x4.all_true i32x4.bitmask
fd:a7 - i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u
fd:aa - i32x4.extend_high_i16x8_u i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add
fd:b1 - i32x4.sub
fd:b5 - i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s
fd:bc - i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u
fd:bf - i32x4.extmul_high_i16x8_u i64x2.abs i64x2.neg
fd:c3 - i64x2.all_true i64x2.bitmask
fd:c7 - i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u
fd:ca - i64x2.extend_high_i32x4_u i64x2.shl i64x2.shr_s i64x2.shr_u i64x2.add
fd:d1 - i64x2.sub
fd:d5 - i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s
fd:dc - i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u
fd:df - i64x2.extmul_high_i32x4_u f32x4.abs f32x4.neg
fd:e3 - f32x4.sqrt f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin
fd:eb - f32x4.pmax f64x2.abs f64x2.neg
fd:ef - f64x2.sqrt f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin
fd:f7 - f64x2.pmax i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s
fd:fb - f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero
fd:fe - f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u i8x16.relaxed_swizzle
fd:101 - i32x4.relaxed_trunc_f32x4_s i32x4.relaxed_trunc_f32x4_u i32x4.relaxed_trunc_f64x2_s_zero
fd:104 - i32x4.relaxed_trunc_f64x2_u_zero f32x4.relaxed_madd f32x4.relaxed_nmadd
fd:107 - f64x2.relaxed_madd f64x2.relaxed_nmadd i8x16.relaxed_laneselect i16x8.relaxed_laneselect
fd:10b - i32x4.relaxed_laneselect i64x2.relaxed_laneselect f32x4.relaxed_min f32x4.relaxed_max
fd:10f - f64x2.relaxed_min f64x2.relaxed_max i16x8.relaxed_q15mulr_s
fd:112 - i16x8.relaxed_dot_i8x16_i7x16_s i32x4.relaxed_dot_i8x16_i7x16_add_s
fe:00 memarg memory.atomic.notify memory.atomic.wait32 memory.atomic.wait64
fe:03 fence atomic.fence
fe:10 memarg i32.atomic.load i64.atomic.load i32.atomic.load8_u i32.atomic.load16_u
fe:14 memarg i64.atomic.load8_u i64.atomic.load16_u i64.atomic.load32_u i32.atomic.store
fe:18 memarg i64.atomic.store i32.atomic.store8 i32.atomic.store16 i64.atomic.store8
fe:1c memarg i64.atomic.store16 i64.atomic.store32
fe:1e rmw add sub and or xor xchg cmpxchg
"""
"""Lines of: the first opcode (hex, behind its prefix), what follows, the names of it and the next
ones. `rmw` lists operations, each of which has seven forms (`RMW`)."""

RMW = ("i32.atomic.rmw.{}", "i64.atomic.rmw.{}", "i32.atomic.rmw8.{}_u", "i32.atomic.rmw16.{}_u",
       "i64.atomic.rmw8.{}_u", "i64.atomic.rmw16.{}_u", "i64.atomic.rmw32.{}_u")  # fmt: skip

_WIDTH = re.compile(r"(?:load|store|rmw|wait)(\d+)(?:x(\d))?")


class Opcode(NamedTuple):
    """An instruction.

    Attributes:
        name: As the text format has it.
        follows: What follows in the binary; "" is nothing.
        natural: log2 of the alignment in bytes that the text need not name.
    """

    name: str
    follows: str
    natural: int = 0


@functools.cache
def opcodes() -> dict[tuple[int, int], Opcode]:
    """{(prefix or 0, number): the instruction}."""
    found = {}
    for line in TABLE.split("\n"):
        if not line:
            continue
        place, follows, *names = line.split()
        prefix, _, number = place.rpartition(":")
        if follows == "rmw":
            follows, names = "memarg", [form.format(name) for name in names for form in RMW]
        for at, name in enumerate(names, int(number, 16)):
            natural = _natural(name) if follows.startswith("memarg") else 0
            kind = "" if follows == "-" else follows
            found[int(prefix or "0", 16), at] = Opcode(name, kind, natural)
    return found


def _natural(name: str) -> int:
    """log2 of the bytes that it reads or writes."""
    match = _WIDTH.search(name)
    if match is not None:
        bits = int(match[1]) * int(match[2] or 1)
    elif name.startswith("v128"):
        bits = 128
    else:
        bits = 64 if name[1:3] == "64" else 32  # memory.atomic.notify has 32
    return (bits // 8).bit_length() - 1
