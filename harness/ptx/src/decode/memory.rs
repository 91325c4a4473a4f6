//! Loads, stores and addresses: ld, ldu, st, ldmatrix, stmatrix, cvta, isspacep, prefetch, mapa, getctarank, createpolicy.

use super::{Mods, Operand, Operands, Refusal, Type, types::Kind};
use crate::program::{Op, Ordering, Space};

const SPACES: [(&str, Space); 10] = [
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("shared::cluster", Space::Cluster),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Param),
    ("const", Space::Const),
    ("generic", Space::Generic),
];

/// Takes the space; none is the generic one.
pub(super) fn space(mods: &mut Mods) -> Space {
    mods.one_of(&SPACES).unwrap_or(Space::Generic)
}

/// Takes the modifiers of strong accesses.
pub(super) fn strength(mods: &mut Mods) -> (bool, Ordering) {
    let acquire = mods.flag("acquire");
    let release = mods.flag("release");
    let both = mods.flag("acq_rel");
    let relaxed = mods.flag("relaxed") | mods.flag("volatile");
    let ordering = Ordering { acquire: acquire || both, release: release || both };
    (relaxed || acquire || release || both, ordering)
}

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    match name {
        "ld" | "ldu" => load(mods, operands),
        "st" => store(mods, operands),
        "ldmatrix" | "stmatrix" => matrices(name, mods, operands),
        "cvta" => {
            let to = mods.flag("to");
            let (space, ty) = (space(mods), mods.ty()?);
            if ty != Type::U64 || matches!(space, Space::Generic | Space::Cluster) {
                return Err("cvta is known for 64-bit addresses of a space".into());
            }
            let (result, address) = (operands.result(ty)?, operands.source(ty)?);
            Ok(if to { Op::FromGeneric { result, address, space } } else { Op::ToGeneric { result, address, space } })
        }
        "isspacep" => {
            let space = space(mods);
            let (result, address) = (operands.result(Type::PREDICATE)?, operands.source(Type::U64)?);
            Ok(Op::InSpace { result, address, space })
        }
        "prefetch" | "prefetchu" | "applypriority" | "discard" => {
            let space = space(mods);
            mods.hints();
            mods.flag("L1");
            mods.flag("L2");
            if name == "discard" {
                return Err("unknown opcode discard".into());
            }
            // No access: an address outside of all buffers is no mistake.
            operands.address(space)?;
            if operands.more() {
                operands.next()?;
            }
            Ok(Op::Nothing)
        }
        "mapa" => {
            let generic = space(mods) == Space::Generic;
            let ty = mods.ty()?;
            let (result, address, rank) = (operands.result(ty)?, operands.source(ty)?, operands.source(Type::U32)?);
            Ok(Op::MapShared { result, address, rank, generic })
        }
        "getctarank" => {
            let generic = space(mods) == Space::Generic;
            let ty = mods.ty()?;
            let (result, address) = (operands.result(Type::U32)?, operands.source(ty)?);
            Ok(Op::BlockOfShared { result, address, generic })
        }
        // A cache policy: a number that only cache hints use.
        "createpolicy" => {
            mods.flag("fractional");
            mods.hints();
            let result = operands.result(mods.ty()?)?;
            operands.list.clear();
            let zero = operands.registry.constant(0);
            Ok(Op::Alu { run: super::lanes::one(|a| a), result, second: None, operands: [zero; 3] })
        }
        _ => Err(format!("unknown opcode {name}")),
    }
}

/// What loads and stores have in common: the space, the ordering, elements in a vector and their type.
fn common(mods: &mut Mods) -> Result<(Space, bool, Ordering, usize, Type, bool), Refusal> {
    let (strong, ordering) = strength(mods);
    mods.flag("mmio");
    let space = space(mods);
    let hint = mods.flag("L2::cache_hint");
    mods.hints();
    let vector = mods.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let ty = mods.ty()?;
    if ty.kind == Kind::Predicate || ty.count > 1 || vector * ty.bits() as usize > 256 {
        return Err("a memory access has no such type".into());
    }
    Ok((space, strong, ordering, vector, ty, hint))
}

fn load(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    // The read-only cache: kernels that write what they read so are told of by the checks.
    mods.flag("nc");
    let (space, strong, ordering, vector, ty, hint) = common(mods)?;
    let list = operands.elements()?;
    if list.len() != vector {
        return Err(format!("{} registers for {vector} elements", list.len()));
    }
    let address = operands.address(space)?;
    if hint {
        operands.source(Type::U64)?;
    }
    let mut width = ty.bits();
    let mut results = Vec::new();
    for element in list {
        if element == Operand::Sink {
            results.push(None);
            continue;
        }
        operands.list.push_front(element);
        let (slot, own) = operands.wide_result(ty)?;
        width = own;
        results.push(Some(slot));
    }
    let extend = (ty.is_signed() && width > ty.bits()).then_some(width);
    Ok(Op::Load { address, bytes: ty.bits() / 8, results: results.into(), extend, strong, ordering })
}

fn store(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let (space, strong, ordering, vector, ty, hint) = common(mods)?;
    let address = operands.address(space)?;
    let list = operands.elements()?;
    if list.len() != vector {
        return Err(format!("{} registers for {vector} elements", list.len()));
    }
    let mut sources = Vec::new();
    for element in list {
        operands.list.push_front(element);
        sources.push(operands.wide_source(ty)?);
    }
    if hint {
        operands.source(Type::U64)?;
    }
    Ok(Op::Store { address, bytes: ty.bits() / 8, sources: sources.into(), strong, ordering })
}

/// Matrices of 8 by 8 halves; wider rows and bytes, which sm_100 has, are not known.
fn matrices(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if !(mods.flag("sync") && mods.flag("aligned") && mods.flag("m8n8")) {
        return Err(format!("{name} is known with .sync.aligned.m8n8"));
    }
    let count = mods.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]).ok_or("no number of matrices")?;
    let transposed = mods.flag("trans");
    let space = space(mods);
    if space != Space::Shared || !mods.flag("b16") {
        return Err(format!("{name} is known for .shared and .b16"));
    }
    let store = name == "stmatrix";
    let (address, list) = if store {
        let address = operands.address(space)?;
        (address, operands.elements()?)
    } else {
        let list = operands.elements()?;
        (operands.address(space)?, list)
    };
    if list.len() != count {
        return Err(format!("{} registers for {count} matrices", list.len()));
    }
    let mut registers = Vec::new();
    for element in list {
        operands.list.push_front(element);
        registers.push(if store { operands.source(Type::U32)? } else { operands.result(Type::U32)? });
    }
    Ok(Op::Matrices { address, registers: registers.into(), transposed, store })
}
