//! Comparison and selection: setp, set, selp, slct.

use super::{
    Mods, Operands, Refusal, Type,
    lanes::three,
    types::{Kind, signed},
};
use crate::program::{Alu, Op};
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// A comparison: which orders satisfy it, and whether NaNs do.
#[derive(Clone, Copy)]
struct Test {
    less: bool,
    equal: bool,
    greater: bool,
    unordered: bool,
}

impl Test {
    fn parse(name: &str, ty: Type) -> Option<Self> {
        let t = |less, equal, greater, unordered| Some(Self { less, equal, greater, unordered });
        let float = ty.is_float();
        match name {
            "eq" => t(false, true, false, false),
            "ne" => t(true, false, true, false),
            "lt" => t(true, false, false, false),
            "le" => t(true, true, false, false),
            "gt" => t(false, false, true, false),
            "ge" => t(false, true, true, false),
            // Unsigned comparisons of integers; orders are signed only for signed types anyway.
            "lo" if ty.kind == Kind::Unsigned => t(true, false, false, false),
            "ls" if ty.kind == Kind::Unsigned => t(true, true, false, false),
            "hi" if ty.kind == Kind::Unsigned => t(false, false, true, false),
            "hs" if ty.kind == Kind::Unsigned => t(false, true, true, false),
            "equ" if float => t(false, true, false, true),
            "neu" if float => t(true, false, true, true),
            "ltu" if float => t(true, false, false, true),
            "leu" if float => t(true, true, false, true),
            "gtu" if float => t(false, false, true, true),
            "geu" if float => t(false, true, true, true),
            "num" if float => t(true, true, true, false),
            "nan" if float => t(false, false, false, true),
            _ => None,
        }
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match order {
            Some(Less) => self.less,
            Some(Equal) => self.equal,
            Some(Greater) => self.greater,
            None => self.unordered,
        }
    }
}

const NAMES: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

/// How a third, boolean operand joins the comparison.
#[derive(Clone, Copy)]
enum Join {
    And,
    Or,
    Xor,
}

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    match name {
        "selp" => {
            let ty = mods.ty()?;
            let (result, a, b) = (operands.result(ty)?, operands.source(ty)?, operands.source(ty)?);
            let c = operands.source(Type::PREDICATE)?;
            let run = three(|a, b, c| if c & 1 == 1 { a } else { b });
            Ok(Op::Alu { run, result, second: None, operands: [a, b, c] })
        }
        "setp" => compare(mods, operands, None),
        "set" => {
            let name = NAMES.iter().map(|n| (*n, *n)).collect::<Vec<_>>();
            let test = mods.one_of(&name).ok_or("no comparison")?;
            let into = mods.ty()?;
            mods.0.insert(0, test);
            compare(mods, operands, Some(into))
        }
        _ => Err(format!("unknown opcode {name}")),
    }
}

/// `setp`, or `set` with the type of its result.
fn compare(mods: &mut Mods, operands: &mut Operands, into: Option<Type>) -> Result<Op, Refusal> {
    let names = NAMES.map(|n| (n, n));
    let name = mods.one_of(&names).ok_or("no comparison")?;
    let join = mods.one_of(&[("and", Join::And), ("or", Join::Or), ("xor", Join::Xor)]);
    let ftz = mods.flag("ftz");
    let ty = mods.ty()?;
    let test = Test::parse(name, ty).ok_or_else(|| format!(".{name} does not compare this type"))?;
    let bits_kind = ty.kind == Kind::Bits && !matches!(name, "eq" | "ne");
    if bits_kind || ty.kind == Kind::Predicate || ty.element == 8 || (ftz && !ty.is_float()) {
        return Err(format!("setp.{name} has no such type"));
    }
    let (result, second) = match into {
        None => operands.result_pair(Type::PREDICATE)?,
        Some(into) => (Some(operands.result(into)?), None),
    };
    let (a, b) = (operands.source(ty)?, operands.source(ty)?);
    let negated = matches!(operands.list.front(), Some(super::Operand::Not(_)));
    let c = match operands.list.pop_front() {
        Some(super::Operand::Not(slot)) => slot,
        Some(o) => operands.value(o, Type::PREDICATE)?,
        None => operands.registry.constant(0),
    };
    if ty.count > 1 {
        return packed(ty, test, join, into, (result, second), [a, b, c]);
    }
    // What set stores for true.
    let yes = match into {
        None => 1,
        Some(t) => {
            t.format().map_or(super::types::low(u64::MAX, t.bits()), |f| f.round(1.0, crate::number::Mode::Nearest))
        }
    };
    let order = order(ty, ftz);
    let finish = move |x: bool, c: bool| match join {
        None => x,
        Some(Join::And) => x && c,
        Some(Join::Or) => x || c,
        Some(Join::Xor) => x ^ c,
    };
    let pair = second.is_some();
    // Only setp writes a second predicate, which joins the negated comparison.
    let run: Alu = three(move |a, b, c| {
        let (x, c) = (test.holds(order(a, b)), (c & 1 == 1) != negated);
        let first = if finish(x, c) { yes } else { 0 };
        if pair { first | u64::from(finish(!x, c)) << 1 } else { first }
    });
    let result = result.ok_or("setp without a first result")?;
    Ok(Op::Alu { run, result, second, operands: [a, b, c] })
}

/// The order of two values of a type; `None` where one is a NaN.
fn order(ty: Type, ftz: bool) -> impl Fn(u64, u64) -> Option<Ordering> + Copy + Send + Sync + 'static {
    let (bits, sign, format) = (ty.bits(), ty.is_signed(), ty.format());
    move |a, b| match format {
        Some(format) if ftz => format.value(format.flush(a)).partial_cmp(&format.value(format.flush(b))),
        Some(format) => format.value(a).partial_cmp(&format.value(b)),
        None if sign => Some(signed(a, bits).cmp(&signed(b, bits))),
        None => Some(a.cmp(&b)),
    }
}

/// `setp` of packed halves: the low ones decide the first predicate, the high ones the second.
fn packed(
    ty: Type,
    test: Test,
    join: Option<Join>,
    into: Option<Type>,
    (result, second): (Option<crate::program::Slot>, Option<crate::program::Slot>),
    operands: [crate::program::Slot; 3],
) -> Result<Op, Refusal> {
    let (Some(result), Some(second), None, None) = (result, second, join, into) else {
        return Err("a comparison of packed halves is known as setp with two results and no third operand only".into());
    };
    let order = order(Type { count: 1, ..ty }, false);
    let run = three(move |a, b, _| {
        let half = |shift: u32| u64::from(test.holds(order(a >> shift & 0xffff, b >> shift & 0xffff)));
        half(0) | half(16) << 1
    });
    Ok(Op::Alu { run, result, second: Some(second), operands })
}
