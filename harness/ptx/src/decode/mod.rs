//! Opcode by opcode: from a name, its modifiers and operands to an operation. One file a family, named like the PTX
//! manual's chapters; [`decode`] says which file knows which opcode.
//!
//! Every modifier has to be taken by the file that knows the opcode, and every operand too: what is left over is refused,
//! so that nothing is guessed.

mod arithmetic;
mod asynchronous;
mod atomic;
mod barrier;
mod bits;
mod compare;
mod control;
mod convert;
mod finish;
mod float;
pub(crate) mod lanes;
mod memory;
mod operands;
mod types;
mod warp;

pub(crate) use operands::{Operand, Operands, Registry};
pub(crate) use types::Type;

use crate::program::Op;

/// What is wrong with an instruction, for the parser to add the line to.
pub(crate) type Refusal = String;

/// The modifiers of an instruction that no one has taken yet.
pub(crate) struct Mods<'a>(Vec<&'a str>);

impl<'a> Mods<'a> {
    /// Takes a modifier if it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|m| *m == name);
        if let Some(at) = at {
            self.0.remove(at);
        }
        at.is_some()
    }

    /// Takes the first modifier that has a value in `table`.
    pub fn one_of<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (at, value) =
            self.0.iter().enumerate().find_map(|(at, m)| table.iter().find(|(n, _)| n == m).map(|(_, v)| (at, *v)))?;
        self.0.remove(at);
        Some(value)
    }

    /// Takes the modifiers that change no result: cache hints and who may see an access when.
    pub fn hints(&mut self) {
        self.0.retain(|m| {
            let cache = ["L1::", "L2::"].iter().any(|level| m.starts_with(level)) && *m != "L2::cache_hint";
            !cache && !["ca", "cg", "cs", "lu", "cv", "wb", "wt", "cta", "cluster", "gpu", "sys", "weak"].contains(m)
        });
    }

    /// Takes the next type.
    pub fn ty(&mut self) -> Result<Type, Refusal> {
        let at = self.0.iter().position(|m| Type::parse(m).is_some()).ok_or("no type that is known")?;
        Ok(Type::parse(self.0.remove(at)).expect("found above"))
    }
}

/// The operation of the instruction `opcode` (name and modifiers, with dots).
pub(crate) fn decode(opcode: &str, operands: &mut Operands) -> Result<Op, Refusal> {
    let mut parts = opcode.split('.');
    let name = parts.next().unwrap_or_default();
    let mut mods = Mods(parts.collect());
    let family = match name {
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "abs" | "neg" | "min" | "max" | "fma" => {
            let float = mods.0.iter().any(|m| Type::parse(m).is_some_and(Type::is_float));
            if float { float::decode } else { arithmetic::decode }
        }
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" | "testp" => float::decode,
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "brev" | "popc" | "clz"
        | "bfind" | "prmt" | "lop3" => bits::decode,
        "setp" | "set" | "selp" | "slct" => compare::decode,
        "cvt" | "mov" => convert::decode,
        "ld" | "ldu" | "st" | "cvta" | "isspacep" | "prefetch" | "prefetchu" | "mapa" | "getctarank"
        | "createpolicy" | "applypriority" | "discard" | "ldmatrix" | "stmatrix" => memory::decode,
        "atom" | "red" => atomic::decode,
        "cp" | "mbarrier" => asynchronous::decode,
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warp::decode,
        "bar" | "barrier" | "fence" | "membar" => barrier::decode,
        "bra" | "call" | "ret" | "exit" | "trap" | "nanosleep" | "griddepcontrol" => control::decode,
        _ => return Err(format!("unknown opcode {name}")),
    };
    let op = family(name, &mut mods, operands)?;
    if let Some(rest) = mods.0.first() {
        return Err(format!("unknown modifier .{rest} of {name}"));
    }
    operands.finish()?;
    Ok(op)
}
