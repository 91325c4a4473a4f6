//! Logic and shifts: and, or, xor, not, cnot, shl, shr, shf, bfe, bfi, brev, popc, clz, bfind, prmt, lop3.

use super::{
    Mods, Operands, Refusal, Type,
    lanes::{one, three, two},
    types::{Kind, low, signed},
};
use crate::program::Op;

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    match name {
        "shf" => return funnel(mods, operands),
        "prmt" => return permute(mods, operands),
        "lop3" => return lookup(mods, operands),
        _ => {}
    }
    let shift_amount = mods.flag("shiftamt");
    let ty = mods.ty()?;
    let (bits, sign) = (ty.bits(), ty.is_signed());
    let known = match name {
        "and" | "or" | "xor" | "not" => matches!(ty.kind, Kind::Bits | Kind::Predicate),
        "cnot" | "shl" => ty.kind == Kind::Bits,
        "shr" => !ty.is_float() && ty.kind != Kind::Predicate,
        "bfe" | "bfind" => matches!(ty.kind, Kind::Unsigned | Kind::Signed) && bits >= 32,
        _ => ty.kind == Kind::Bits && bits >= 32,
    };
    if !known || bits == 8 || ty.count > 1 || (shift_amount && name != "bfind") {
        return Err(format!("{name} has no such type"));
    }
    let run = match name {
        "and" => two(|a, b| a & b),
        "or" => two(|a, b| a | b),
        "xor" => two(|a, b| a ^ b),
        "not" => one(move |a| low(!a, bits)),
        "cnot" => one(|a| (a == 0).into()),
        "brev" => one(move |a| a.reverse_bits() >> (64 - bits)),
        // A shift by the width or more gives zero, or the sign.
        "shl" => two(move |a, n| if n >= u64::from(bits) { 0 } else { low(a << n, bits) }),
        "shr" if sign => two(move |a, n| low((signed(a, bits) >> n.min(63)) as u64, bits)),
        "shr" => two(move |a, n| if n >= u64::from(bits) { 0 } else { a >> n }),
        "popc" => one(|a| a.count_ones().into()),
        "clz" => one(move |a| u64::from(a.leading_zeros() - (64 - bits))),
        "bfind" => one(move |a| {
            let magnitude = if sign && signed(a, bits) < 0 { low(!a, bits) } else { a };
            match magnitude {
                0 => u64::from(u32::MAX),
                m if shift_amount => u64::from(m.leading_zeros() - (64 - bits)),
                m => u64::from(63 - m.leading_zeros()),
            }
        }),
        "bfe" => three(move |a, at, n| extract(a, at & 0xff, n & 0xff, bits, sign)),
        "bfi" => return insert(ty, operands),
        _ => return Err("unknown operation on bits".into()),
    };
    match name {
        "popc" | "clz" | "bfind" => {
            let result = operands.result(Type::U32)?;
            operands.alu_into(1, ty, result, run)
        }
        "shl" | "shr" => {
            let (result, a, n) = (operands.result(ty)?, operands.source(ty)?, operands.source(Type::U32)?);
            let zero = operands.registry.constant(0);
            Ok(Op::Alu { run, result, second: None, operands: [a, n, zero] })
        }
        "bfe" => {
            let (result, a) = (operands.result(ty)?, operands.source(ty)?);
            let places = [a, operands.source(Type::U32)?, operands.source(Type::U32)?];
            Ok(Op::Alu { run, result, second: None, operands: places })
        }
        "and" | "or" | "xor" => operands.alu(2, ty, run),
        _ => operands.alu(1, ty, run),
    }
}

/// `bfe`: n bits of `a` from `at` on; beyond the top, and for signed types beyond the field, the sign bit repeats.
fn extract(a: u64, at: u64, n: u64, bits: u32, sign: bool) -> u64 {
    let top = u64::from(bits) - 1;
    if n == 0 {
        return 0;
    }
    let fill = sign && a >> (at + n - 1).min(top) & 1 == 1;
    let field = if at > top { 0 } else { a >> at };
    let taken = n.min((top + 1).saturating_sub(at));
    let kept = if taken == 0 { 0 } else { low(field, taken as u32) };
    let ones = if fill { u64::MAX.checked_shl(taken as u32).unwrap_or(0) } else { 0 };
    low(kept | ones, bits)
}

/// `bfi d, a, b, c, n`: the low n bits of a over those of b from c on. Four operands: the place and the length are one.
fn insert(ty: Type, operands: &mut Operands) -> Result<Op, Refusal> {
    let bits = ty.bits();
    let (result, a, b) = (operands.result(ty)?, operands.source(ty)?, operands.source(ty)?);
    let (at, n) = (operands.next()?, operands.next()?);
    let (super::Operand::Integer(at), super::Operand::Integer(n)) = (at, n) else {
        return Err("bfi is known with a constant place and length only".into());
    };
    let (at, n) = (at & 0xff, n & 0xff);
    let field = if n == 0 { 0 } else { low(u64::MAX, n.min(64) as u32) };
    let mask = low(field.checked_shl(at as u32).unwrap_or(0), bits);
    let run = two(move |a, b| (a.checked_shl(at as u32).unwrap_or(0) & mask) | (b & !mask));
    let zero = operands.registry.constant(0);
    Ok(Op::Alu { run, result, second: None, operands: [a, b, zero] })
}

fn funnel(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let left = mods.one_of(&[("l", true), ("r", false)]).ok_or("neither .l nor .r")?;
    let wrap = mods.one_of(&[("wrap", true), ("clamp", false)]).ok_or("neither .wrap nor .clamp")?;
    let ty = mods.ty()?;
    if ty.bits() != 32 || ty.kind != Kind::Bits {
        return Err("shf has no such type".into());
    }
    // b holds the high word, a the low one.
    let run = three(move |a, b, n| {
        let n = if wrap { n & 31 } else { n.min(32) };
        let both = b << 32 | a;
        u64::from(if left { (both << n >> 32) as u32 } else { (both >> n) as u32 })
    });
    operands.alu(3, ty, run)
}

fn permute(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let ty = mods.ty()?;
    if ty.bits() != 32 || ty.kind != Kind::Bits {
        return Err("prmt has no such type".into());
    }
    // Each nibble of c picks a byte of b:a; its high bit repeats that byte's sign instead.
    let run = three(|a, b, c| {
        let bytes = (b << 32 | a).to_le_bytes();
        (0..4).fold(0, |result, i| {
            let pick = c >> (4 * i) & 0xf;
            let byte = bytes[(pick & 7) as usize];
            let byte = if pick & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
            result | u64::from(byte) << (8 * i)
        })
    });
    operands.alu(3, ty, run)
}

fn lookup(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let ty = mods.ty()?;
    if ty.bits() != 32 || ty.kind != Kind::Bits {
        return Err("lop3 has no such type".into());
    }
    let Some(super::Operand::Integer(table)) = operands.list.pop_back() else {
        return Err("the table of lop3 is no constant".into());
    };
    let run = three(move |a, b, c| {
        (0..8).filter(|row| table >> row & 1 == 1).fold(0, |result, row| {
            let pick = |v: u64, bit: u32| if row >> bit & 1 == 1 { v } else { !v };
            result | (pick(a, 2) & pick(b, 1) & pick(c, 0) & 0xffff_ffff)
        })
    });
    operands.alu(3, ty, run)
}
