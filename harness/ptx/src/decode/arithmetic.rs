//! Integer arithmetic: add, sub, mul, mad, div, rem, abs, neg, min, max.

use super::{
    Mods, Operands, Refusal, Type,
    lanes::{one, three, two},
    types::{Kind, low, signed},
};
use crate::program::{Alu, Op};

/// Which part of a product is the result.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Low,
    High,
    Wide,
}

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let part = mods.one_of(&[("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)]);
    let ty = mods.ty()?;
    if !matches!(ty.kind, Kind::Unsigned | Kind::Signed) || ty.element == 8 {
        return Err(format!("{name} has no such type"));
    }
    if matches!(name, "mul" | "mad") {
        return multiply(name, part.ok_or("neither .lo nor .hi nor .wide")?, ty, operands);
    }
    if part.is_some() {
        return Err(format!("{name} has no part of a product"));
    }
    let run = simple(name, ty).ok_or("unknown integer operation")?;
    operands.alu(if matches!(name, "abs" | "neg") { 1 } else { 2 }, ty, run)
}

fn multiply(name: &str, part: Part, ty: Type, operands: &mut Operands) -> Result<Op, Refusal> {
    let (bits, sign) = (ty.bits(), ty.is_signed());
    let wide = Type { element: 2 * bits, ..ty };
    if part == Part::Wide && bits == 64 {
        return Err("mul.wide of 64 bits".into());
    }
    let product = move |a: u64, b: u64| {
        if sign {
            (i128::from(signed(a, bits)) * i128::from(signed(b, bits))) as u128
        } else {
            u128::from(a) * u128::from(b)
        }
    };
    let result_ty = if part == Part::Wide { wide } else { ty };
    let run: Alu = match (part, bits) {
        (Part::Low, _) => three(move |a, b, c| low(a.wrapping_mul(b).wrapping_add(c), bits)),
        (Part::Wide, _) if sign => {
            three(move |a, b, c| low((signed(a, bits).wrapping_mul(signed(b, bits)) as u64).wrapping_add(c), 2 * bits))
        }
        (Part::Wide, _) => three(move |a, b, c| low(a.wrapping_mul(b).wrapping_add(c), 2 * bits)),
        (Part::High, _) => three(move |a, b, c| low(((product(a, b) >> bits) as u64).wrapping_add(c), bits)),
    };
    let result = operands.result(result_ty)?;
    let (a, b) = (operands.source(ty)?, operands.source(ty)?);
    let c = if name == "mad" { operands.source(result_ty)? } else { operands.registry.constant(0) };
    Ok(Op::Alu { run, result, second: None, operands: [a, b, c] })
}

fn simple(name: &str, ty: Type) -> Option<Alu> {
    let bits = ty.bits();
    let s = move |v| signed(v, bits);
    Some(match (name, ty.is_signed()) {
        ("add", _) if bits == 32 => two(|a, b| u64::from((a as u32).wrapping_add(b as u32))),
        ("add", _) => two(move |a, b| low(a.wrapping_add(b), bits)),
        ("sub", _) => two(move |a, b| low(a.wrapping_sub(b), bits)),
        ("min", false) => two(u64::min),
        ("max", false) => two(u64::max),
        ("min", true) => two(move |a, b| if s(a) <= s(b) { a } else { b }),
        ("max", true) => two(move |a, b| if s(a) >= s(b) { a } else { b }),
        // A division by zero gives an unspecified value; this is what the hardware returns.
        ("div", false) => two(move |a, b| a.checked_div(b).unwrap_or(low(u64::MAX, bits))),
        ("rem", false) => two(|a, b| a.checked_rem(b).unwrap_or(a)),
        ("div", true) => two(move |a, b| match s(b) {
            0 => low(u64::MAX, bits),
            d => low(s(a).wrapping_div(d) as u64, bits),
        }),
        ("rem", true) => two(move |a, b| match s(b) {
            0 => a,
            d => low(s(a).wrapping_rem(d) as u64, bits),
        }),
        ("abs", true) => one(move |a| low(s(a).unsigned_abs(), bits)),
        ("neg", true) => one(move |a| low(a.wrapping_neg(), bits)),
        _ => return None,
    })
}
