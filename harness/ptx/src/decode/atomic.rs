//! Atomic operations: atom, red.

use super::{
    Mods, Operand, Operands, Refusal, Type,
    memory::{space, strength},
    types::{Kind, low, signed},
};
use crate::{
    number::{Format, Mode, odd},
    program::{Combine, Op, Space},
};
use std::sync::Arc;

const NAMES: [&str; 10] = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"];

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let (_, ordering) = strength(mods);
    let names = NAMES.map(|n| (n, n));
    let space = space(mods);
    if !matches!(space, Space::Generic | Space::Global | Space::Shared | Space::Cluster) {
        return Err(format!("{name} on this space"));
    }
    let function = mods.one_of(&names).ok_or("unknown atomic operation")?;
    let noftz = mods.flag("noftz");
    let hint = mods.flag("L2::cache_hint");
    mods.hints();
    let vector = mods.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let ty = mods.ty()?;
    if noftz && !matches!(ty.format(), Some(Format::F16 | Format::Bf16)) {
        return Err(".noftz for this type".into());
    }
    let combine = combine(function, ty).ok_or_else(|| format!("{name}.{function} of this type is not known"))?;
    let results = match name {
        "red" if matches!(function, "exch" | "cas") => return Err(format!("red.{function}")),
        "red" => vec![None; vector],
        _ => {
            let mut results = Vec::new();
            for element in operands.elements()? {
                operands.list.push_front(element);
                results.push(operands.optional_result(ty)?);
            }
            results
        }
    };
    let address = operands.address(space)?;
    let list = operands.elements()?;
    if list.len() != vector || results.len() != vector {
        return Err(format!("{} registers for {vector} elements", list.len()));
    }
    let b = list.into_iter().map(|o: Operand| operands.value(o, ty)).collect::<Result<_, _>>()?;
    let c = if function == "cas" { operands.source(ty)? } else { operands.registry.constant(0) };
    if hint {
        operands.source(Type::U64)?;
    }
    Ok(Op::Atomic { address, bytes: ty.bits() / 8, combine, results: results.into(), b, c, ordering })
}

/// `(old, b, c) -> new`.
fn combine(name: &str, ty: Type) -> Option<Combine> {
    let bits = ty.bits();
    if let Some(format) = ty.format() {
        return float(name, format, ty.count);
    }
    let wide = matches!(bits, 32 | 64);
    let f = |f: fn(u64, u64, u64) -> u64| -> Option<Combine> { Some(Arc::new(f)) };
    match (name, ty.kind) {
        ("exch", Kind::Bits) if wide => f(|_, b, _| b),
        ("cas", Kind::Bits) if wide || bits == 16 => f(|old, b, c| if old == b { c } else { old }),
        ("and", Kind::Bits) if wide => f(|old, b, _| old & b),
        ("or", Kind::Bits) if wide => f(|old, b, _| old | b),
        ("xor", Kind::Bits) if wide => f(|old, b, _| old ^ b),
        ("add", Kind::Unsigned | Kind::Signed) if wide => {
            Some(Arc::new(move |old: u64, b, _| low(old.wrapping_add(b), bits)))
        }
        ("min", Kind::Unsigned) if wide => f(|old, b, _| old.min(b)),
        ("max", Kind::Unsigned) if wide => f(|old, b, _| old.max(b)),
        ("min", Kind::Signed) if wide => {
            Some(Arc::new(move |old, b, _| if signed(b, bits) < signed(old, bits) { b } else { old }))
        }
        ("max", Kind::Signed) if wide => {
            Some(Arc::new(move |old, b, _| if signed(b, bits) > signed(old, bits) { b } else { old }))
        }
        ("inc", Kind::Unsigned) if bits == 32 => f(|old, b, _| if old >= b { 0 } else { old + 1 }),
        ("dec", Kind::Unsigned) if bits == 32 => f(|old, b, _| if old == 0 || old > b { b } else { old - 1 }),
        _ => None,
    }
}

/// Sums round to nearest. f32 sums in global memory keep subnormals, as the manual says; so do all here.
fn float(name: &str, format: Format, count: u32) -> Option<Combine> {
    if name != "add" || format == Format::Tf32 {
        return None;
    }
    let add = move |a: u64, b: u64| match format {
        Format::F64 => format.round(format.value(a) + format.value(b), Mode::Nearest),
        _ => format.round(odd::add(format.value(a), format.value(b)), Mode::Nearest),
    };
    Some(match count {
        1 => Arc::new(move |old, b, _| add(old, b)),
        _ => Arc::new(move |old, b, _| add(old & 0xffff, b & 0xffff) | add(old >> 16, b >> 16) << 16),
    })
}
