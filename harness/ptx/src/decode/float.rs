//! Floating-point arithmetic: add, sub, mul, fma, mad, div, abs, neg, min, max, rcp, sqrt, rsqrt, ex2, lg2, sin, cos,
//! tanh, copysign, testp.
//!
//! A NaN that arithmetic returns is the one that the PTX manual names: 0x7fffffff, 0x7fff; for f64, whose NaN it leaves
//! open, 0x7ff8000000000000.

use super::{
    Mods, Operands, Refusal, Type,
    finish::Finish,
    lanes::{packed, three},
};
use crate::{
    execute::approximate::{Approximate, Function},
    number::{Format, Mode, odd},
    program::{Alu, Op},
};

/// The rounding modes of arithmetic.
pub(super) const MODES: [(&str, Mode); 4] =
    [("rn", Mode::Nearest), ("rz", Mode::Zero), ("rm", Mode::Down), ("rp", Mode::Up)];

#[inline(always)]
fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

#[inline(always)]
fn bits_of(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
}

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let mode = mods.one_of(&MODES);
    let (approx, full) = (mods.flag("approx"), mods.flag("full"));
    let (ftz, sat, relu, nan) = (mods.flag("ftz"), mods.flag("sat"), mods.flag("relu"), mods.flag("NaN"));
    let test = mods.one_of(&TESTS);
    let ty = mods.ty()?;
    let Some(format) = ty.format().filter(|f| *f != Format::Tf32) else {
        return Err(format!("{name} has no such type"));
    };
    let (f32, f64) = (format == Format::F32, format == Format::F64);
    let half = !f32 && !f64;
    let refuse = |bad: bool, what: &str| if bad { Err(format!("{name} with {what} is not known")) } else { Ok(()) };
    refuse(ftz && (f64 || format == Format::Bf16 && name != "ex2"), ".ftz for this type")?;
    refuse(sat && (!matches!(name, "add" | "sub" | "mul" | "fma" | "mad") || f64 || format == Format::Bf16), ".sat")?;
    refuse(relu && (name != "fma" || !half), ".relu")?;
    refuse(nan && (f64 || !matches!(name, "min" | "max")), ".NaN")?;
    refuse(test.is_some() != (name == "testp"), "this test")?;
    let rounded = matches!(name, "add" | "sub" | "mul" | "fma" | "mad" | "div" | "rcp" | "sqrt");
    refuse(mode.is_some() && (!rounded || approx || full), "a rounding mode")?;
    refuse(mode.is_some_and(|m| m != Mode::Nearest) && !f32, "this rounding mode for this type")?;
    refuse(half && matches!(name, "div" | "rcp" | "sqrt" | "rsqrt" | "lg2" | "sin" | "cos" | "testp"), "a half type")?;

    if let Some(function) = Function::parse(name).filter(|_| approx || full) {
        refuse(full && name != "div", ".full")?;
        refuse(f64 || half && !matches!(name, "ex2" | "tanh"), ".approx for this type")?;
        refuse(ftz && name == "tanh", ".ftz")?;
        let result = operands.result(ty)?;
        let a = operands.source(ty)?;
        let b = if name == "div" { operands.source(ty)? } else { a };
        let function = Approximate { function, format, count: ty.count, ftz };
        return Ok(Op::Approximate { function, result, operands: [a, b] });
    }
    refuse(approx || full, "an approximation")?;
    refuse(matches!(name, "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh"), "no .approx")?;
    let needs_mode = matches!(name, "fma" | "mad" | "div" | "rcp" | "sqrt");
    refuse(needs_mode && mode.is_none(), "no rounding mode")?;
    if let Some(test) = test {
        let result = operands.result(Type::PREDICATE)?;
        return operands.alu_into(1, ty, result, three(move |a, _, _| test.holds(format, a).into()));
    }
    let finish = Finish { format, mode: mode.unwrap_or(Mode::Nearest), ftz, sat, relu };
    let (n, run) = evaluate(name, finish, ty.count, nan).ok_or_else(|| format!("unknown operation {name}"))?;
    operands.alu(n, ty, run)
}

/// The number of operands and the evaluation.
fn evaluate(name: &str, f: Finish, count: u32, nan: bool) -> Option<(usize, Alu)> {
    let format = f.format;
    let sign = 1u64 << (format.bits() - 1);
    let (i, o) = (move |v| f.input(v), move |v| f.output(v));
    let f64_format = format == Format::F64;
    let plain_f32 = format == Format::F32 && f.is_plain();
    Some(match name {
        // What the processor does itself, because nearly all instructions are these.
        "add" if plain_f32 => (2, three(|a, b, _| bits_of(f32_of(a) + f32_of(b)))),
        "sub" if plain_f32 => (2, three(|a, b, _| bits_of(f32_of(a) - f32_of(b)))),
        "mul" if plain_f32 => (2, three(|a, b, _| bits_of(f32_of(a) * f32_of(b)))),
        "fma" | "mad" if plain_f32 => (3, three(|a, b, c| bits_of(f32_of(a).mul_add(f32_of(b), f32_of(c))))),
        "div" if plain_f32 => (2, three(|a, b, _| bits_of(f32_of(a) / f32_of(b)))),
        "add" if f64_format => (2, three(move |a, b, _| o(i(a) + i(b)))),
        "sub" if f64_format => (2, three(move |a, b, _| o(i(a) - i(b)))),
        "mul" if f64_format => (2, three(move |a, b, _| o(i(a) * i(b)))),
        "fma" | "mad" if f64_format => (3, three(move |a, b, c| o(i(a).mul_add(i(b), i(c))))),
        "div" if f64_format => (2, three(move |a, b, _| o(i(a) / i(b)))),
        "rcp" if f64_format => (1, three(move |a, _, _| o(1.0 / i(a)))),
        "sqrt" if f64_format => (1, three(move |a, _, _| o(i(a).sqrt()))),
        // A sum of zeros of both signs is -0 only when rounding down.
        "add" => (2, packed(count, move |a, b, _| o(signed_zero(odd::add(i(a), i(b)), i(a), i(b), f.mode)))),
        "sub" => (2, packed(count, move |a, b, _| o(signed_zero(odd::add(i(a), -i(b)), i(a), -i(b), f.mode)))),
        "mul" => (2, packed(count, move |a, b, _| o(i(a) * i(b)))),
        "fma" | "mad" => {
            (3, packed(count, move |a, b, c| o(signed_zero(odd::fma(i(a), i(b), i(c)), i(a) * i(b), i(c), f.mode))))
        }
        "div" => (2, three(move |a, b, _| o(odd::div(i(a), i(b))))),
        "rcp" => (1, three(move |a, _, _| o(odd::div(1.0, i(a))))),
        "sqrt" => (1, three(move |a, _, _| o(odd::sqrt(i(a))))),
        "abs" => (1, packed(count, move |a, _, _| f.flushed(a) & !sign)),
        "neg" => (1, packed(count, move |a, _, _| f.flushed(a) ^ sign)),
        "min" | "max" => {
            let least = name == "min";
            (2, packed(count, move |a, b, _| extreme(f, f.flushed(a), f.flushed(b), least, nan)))
        }
        // The sign of the first operand with the magnitude of the second.
        "copysign" => (2, three(move |a, b, _| a & sign | b & !sign)),
        _ => return None,
    })
}

/// An exact sum that is zero from operands that are not both zero of one sign.
fn signed_zero(sum: f64, a: f64, b: f64, mode: Mode) -> f64 {
    if sum != 0.0 || a.is_sign_negative() == b.is_sign_negative() {
        return sum;
    }
    if mode == Mode::Down { -0.0 } else { 0.0 }
}

/// The lesser or the greater; -0 is less than +0; of a number and a NaN the number, unless NaNs are wanted.
fn extreme(f: Finish, a: u64, b: u64, least: bool, nan: bool) -> u64 {
    let (x, y) = (f.format.value(a), f.format.value(b));
    match (x.is_nan(), y.is_nan()) {
        (true, true) => f.format.nan(),
        (true, false) | (false, true) if nan => f.format.nan(),
        (true, false) => b,
        (false, true) => a,
        _ if x == y => {
            if x.is_sign_negative() == least {
                a
            } else {
                b
            }
        }
        _ => {
            if (x < y) == least {
                a
            } else {
                b
            }
        }
    }
}

/// What `testp` asks.
#[derive(Clone, Copy)]
enum Test {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

const TESTS: [(&str, Test); 6] = [
    ("finite", Test::Finite),
    ("infinite", Test::Infinite),
    ("number", Test::Number),
    ("notanumber", Test::NotANumber),
    ("normal", Test::Normal),
    ("subnormal", Test::Subnormal),
];

impl Test {
    fn holds(self, format: Format, bits: u64) -> bool {
        let value = format.value(bits);
        let subnormal = value != 0.0 && format.value(format.flush(bits)) == 0.0;
        match self {
            Self::Finite => value.is_finite(),
            Self::Infinite => value.is_infinite(),
            Self::Number => !value.is_nan(),
            Self::NotANumber => value.is_nan(),
            Self::Normal => value.is_finite() && value != 0.0 && !subnormal,
            Self::Subnormal => subnormal,
        }
    }
}
