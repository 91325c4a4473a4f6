//! Conversion and moves: cvt, mov.

use super::{
    Mods, Operand, Operands, Refusal, Type,
    finish::Finish,
    lanes::{one, two},
    types::{Kind, low, signed},
};
use crate::{
    number::{Format, Mode, integral, odd},
    program::{Alu, Op},
};

const TO_INTEGER: [(&str, Mode); 4] =
    [("rni", Mode::Nearest), ("rzi", Mode::Zero), ("rmi", Mode::Down), ("rpi", Mode::Up)];

const TO_FLOAT: [(&str, Mode); 5] = [
    ("rn", Mode::Nearest),
    ("rz", Mode::Zero),
    ("rm", Mode::Down),
    ("rp", Mode::Up),
    // For tf32 only.
    ("rna", Mode::Away),
];

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if name == "mov" { movement(mods, operands) } else { convert(mods, operands) }
}

fn movement(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let ty = mods.ty()?;
    if ty.count > 1 || ty.element == 8 {
        return Err("mov has no such type".into());
    }
    let vectors = operands.list.iter().take(2).map(|o| matches!(o, Operand::Vector(_))).collect::<Vec<_>>();
    let part = |n: usize| {
        let bits = ty.bits() / n as u32;
        if ty.kind == Kind::Bits && matches!(bits, 16 | 32) && bits * n as u32 == ty.bits() {
            Ok(Type { kind: Kind::Bits, element: bits, count: 1 })
        } else {
            Err(format!("mov of {} bits to or from {n} parts", ty.bits()))
        }
    };
    match vectors[..] {
        [false, true] => {
            let result = operands.result(ty)?;
            let list = operands.elements()?;
            let part = part(list.len())?;
            let sources = list.into_iter().map(|o| operands.value(o, part)).collect::<Result<_, _>>()?;
            Ok(Op::Pack { sources, result, bits: part.bits() })
        }
        [true, false] => {
            let list = operands.elements()?;
            let part = part(list.len())?;
            let source = operands.source(ty)?;
            operands.list.extend(list);
            let mut results = Vec::new();
            while operands.more() {
                results.push(operands.optional_result(part)?);
            }
            Ok(Op::Unpack { source, results: results.into(), bits: part.bits() })
        }
        _ => operands.alu(1, ty, one(|a| a)),
    }
}

fn convert(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let (to_integer, to_float) = (mods.one_of(&TO_INTEGER), mods.one_of(&TO_FLOAT));
    let (ftz, sat, relu) = (mods.flag("ftz"), mods.flag("sat"), mods.flag("relu"));
    let (to, from) = (mods.ty()?, mods.ty()?);
    let bad = |what: &str| Err(format!("cvt: {what}"));
    if [to, from].iter().any(|t| matches!(t.kind, Kind::Bits | Kind::Predicate)) || from.count > 1 {
        return bad("no such type");
    }
    if to_float == Some(Mode::Away) && to.format() != Some(Format::Tf32) {
        return bad(".rna is for .tf32 only");
    }
    if relu && !matches!(to.format(), Some(Format::F16 | Format::Bf16)) {
        return bad(".relu is for f16 and bf16 only");
    }
    if ftz && to.format() != Some(Format::F32) && from.format() != Some(Format::F32) {
        return bad(".ftz without f32");
    }
    let mode = to_float.unwrap_or(Mode::Nearest);
    // Where the result is an integer, it is not used.
    let format = to.format().unwrap_or(Format::F32);
    let finish = Finish { format, mode, ftz: ftz && format == Format::F32, sat, relu };
    let flush = move |bits: u64, from: Format| if ftz && from == Format::F32 { from.flush(bits) } else { bits };
    if to.count == 2 {
        if from.format() != Some(Format::F32) || to_float.is_none() || sat {
            return bad("packed halves are known from f32, rounded, only");
        }
        let result = operands.result(to)?;
        let (high, low_half) = (operands.source(from)?, operands.source(from)?);
        let run = two(move |a, b| {
            let half = |v: u64| refloat(finish, flush(v, Format::F32), Format::F32);
            half(a) << 16 | half(b)
        });
        let zero = operands.registry.constant(0);
        return Ok(Op::Alu { run, result, second: None, operands: [high, low_half, zero] });
    }
    let (result, width) = operands.wide_result(to)?;
    let source = operands.wide_source(from)?;
    let from_bits = from.bits();
    let run: Alu = match (to.format(), from.format()) {
        (None, None) if to_integer.is_none() && to_float.is_none() => {
            let (sign, wide) = (from.is_signed(), to.is_signed());
            one(move |a| {
                let value = if sign { i128::from(signed(a, from_bits)) } else { i128::from(low(a, from_bits)) };
                let value = if sat { clamp(value, to) } else { value };
                widen(value as u64, to.bits(), wide, width)
            })
        }
        (Some(format), None) if to_integer.is_none() => {
            let exact = match format {
                Format::F32 => from_bits <= 16,
                Format::F64 => from_bits <= 32,
                _ => false,
            };
            if to_float.is_none() && !exact {
                return bad("a rounding mode is missing");
            }
            if format == Format::F64 && from_bits == 64 && to_float != Some(Mode::Nearest) {
                return bad("64-bit integers to f64 are known with .rn only");
            }
            let sign = from.is_signed();
            one(move |a| {
                if format == Format::F64 {
                    return finish.output(if sign { signed(a, from_bits) as f64 } else { low(a, from_bits) as f64 });
                }
                let high = if sign { signed(a, from_bits) >> 32 } else { (low(a, from_bits) >> 32) as i64 };
                let value = odd::add(high as f64 * 4_294_967_296.0, (low_word(a, from_bits, sign)) as f64);
                finish.output(value)
            })
        }
        (None, Some(format)) if to_float.is_none() => {
            let Some(mode) = to_integer else { return bad("a rounding mode is missing") };
            one(move |a| {
                let a = flush(low(a, from_bits), format);
                widen(to_integer_bits(format.value(a), format, mode, to), to.bits(), to.is_signed(), width)
            })
        }
        (Some(target), Some(format)) => {
            let narrows =
                target.bits() < format.bits() || target == Format::Tf32 || (target.bits() == 16 && target != format);
            let known = match (to_integer, to_float) {
                (Some(_), None) => target == format && matches!(format, Format::F16 | Format::F32 | Format::F64),
                (None, mode) => {
                    mode.is_some() == narrows || (mode.is_some() && target == format && format == Format::Bf16)
                }
                _ => false,
            };
            if !known || format == Format::Tf32 || (target == Format::Tf32 && format != Format::F32) {
                return bad("this rounding between these types");
            }
            one(move |a| {
                let a = flush(low(a, from_bits), format);
                match to_integer {
                    Some(mode) => {
                        let value = format.value(a);
                        finish.output(integral(value, mode).copysign(value))
                    }
                    None if target == format && !sat && !relu => a,
                    None => refloat(finish, a, format),
                }
            })
        }
        _ => return bad("this rounding between these types"),
    };
    let zero = operands.registry.constant(0);
    Ok(Op::Alu { run, result, second: None, operands: [source, zero, zero] })
}

/// The low 32 bits of an integer as a non-negative number.
fn low_word(a: u64, bits: u32, sign: bool) -> u64 {
    (if sign { signed(a, bits) as u64 } else { low(a, bits) }) & 0xffff_ffff
}

/// From one floating-point format to another.
#[inline(always)]
fn refloat(finish: Finish, bits: u64, from: Format) -> u64 {
    // What nearly all conversions are.
    if from == Format::F32 && finish.is_plain() {
        let value = f32::from_bits(bits as u32);
        match finish.format {
            Format::F16 | Format::Bf16 if value.is_nan() => return finish.format.nan(),
            Format::F16 => return half::f16::from_f32(value).to_bits().into(),
            Format::Bf16 => return half::bf16::from_f32(value).to_bits().into(),
            _ => {}
        }
    }
    if finish.format == Format::F32 && finish.is_plain() {
        let value = match from {
            Format::F16 => half::f16::from_bits(bits as u16).to_f32(),
            Format::Bf16 => f32::from_bits((bits as u32) << 16),
            _ => return finish.output(from.value(bits)),
        };
        return if value.is_nan() { finish.format.nan() } else { value.to_bits().into() };
    }
    finish.output(from.value(bits))
}

fn clamp(value: i128, to: Type) -> i128 {
    let bits = to.bits();
    if to.is_signed() {
        value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        value.clamp(0, (1 << bits) - 1)
    }
}

/// Out of range goes to the nearest end. A NaN is zero where neither side has 64 bits, else the top bit alone.
fn to_integer_bits(value: f64, from: Format, mode: Mode, to: Type) -> u64 {
    if value.is_nan() {
        return if from == Format::F64 || to.bits() == 64 { 1 << (to.bits() - 1) } else { 0 };
    }
    low(clamp(integral(value, mode) as i128, to) as u64, to.bits())
}

/// A result of `bits` in a register of `width`.
fn widen(value: u64, bits: u32, sign: bool, width: u32) -> u64 {
    low(if sign { signed(value, bits) as u64 } else { low(value, bits) }, width)
}
