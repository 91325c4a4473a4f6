//! What the lanes of a warp do together: shfl, vote, match, redux, activemask, elect.

use super::{Mods, Operands, Refusal, Type, types::Kind};
use crate::program::{Collective, Op, Reduction, Shuffle, Slot};

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if name == "activemask" {
        mods.ty()?;
        return Ok(Op::ActiveMask(operands.result(Type::U32)?));
    }
    if !mods.flag("sync") {
        return Err(format!("{name} without .sync"));
    }
    let zero = operands.registry.constant(0);
    let op = |what, (result, second), [a, b, c]: [Slot; 3], mask| Op::Collective {
        what,
        result,
        second,
        operands: [a, b, c],
        mask,
    };
    match name {
        "shfl" => {
            let kinds =
                [("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Butterfly), ("idx", Shuffle::Index)];
            let kind = mods.one_of(&kinds).ok_or("no kind of shuffle")?;
            let ty = mods.ty()?;
            if ty.bits() != 32 {
                return Err("shfl moves 32 bits".into());
            }
            let results = operands.result_pair(ty)?;
            let sources = [operands.source(ty)?, operands.source(Type::U32)?, operands.source(Type::U32)?];
            Ok(op(Collective::Shuffle(kind), results, sources, operands.source(Type::U32)?))
        }
        "vote" => {
            let kinds = [
                ("all", Collective::VoteAll),
                ("any", Collective::VoteAny),
                ("uni", Collective::VoteUniform),
                ("ballot", Collective::Ballot),
            ];
            let at = kinds.iter().position(|(n, _)| mods.flag(n)).ok_or("no kind of vote")?;
            let kind = kinds[at].1.clone();
            let ty = mods.ty()?;
            let result = operands.result(ty)?;
            if (kind == Collective::Ballot) != (ty.bits() == 32) {
                return Err("vote has no such type".into());
            }
            let negated = matches!(operands.list.front(), Some(super::Operand::Not(_)));
            let a = match operands.next()? {
                super::Operand::Not(slot) => slot,
                o => operands.value(o, Type::PREDICATE)?,
            };
            let flip = operands.registry.constant(negated.into());
            Ok(op(kind, (Some(result), None), [a, flip, zero], operands.source(Type::U32)?))
        }
        "match" => {
            let all = mods.one_of(&[("all", true), ("any", false)]).ok_or("neither .all nor .any")?;
            let ty = mods.ty()?;
            let results = operands.result_pair(Type::U32)?;
            let kind = if all { Collective::MatchAll(ty.bits()) } else { Collective::MatchAny(ty.bits()) };
            let a = operands.source(ty)?;
            Ok(op(kind, results, [a, zero, zero], operands.source(Type::U32)?))
        }
        "redux" => {
            let name = mods.0.first().copied().unwrap_or_default();
            mods.flag(name);
            let ty = mods.ty()?;
            let kind = match (name, ty.kind) {
                ("add", Kind::Unsigned | Kind::Signed) => Reduction::Add,
                ("min", Kind::Unsigned) => Reduction::MinUnsigned,
                ("max", Kind::Unsigned) => Reduction::MaxUnsigned,
                ("min", Kind::Signed) => Reduction::MinSigned,
                ("max", Kind::Signed) => Reduction::MaxSigned,
                ("and", Kind::Bits) => Reduction::And,
                ("or", Kind::Bits) => Reduction::Or,
                ("xor", Kind::Bits) => Reduction::Xor,
                _ => return Err(format!("redux.sync.{name} of this type is not known")),
            };
            if ty.bits() != 32 {
                return Err("redux has no such type".into());
            }
            let (result, a) = (operands.result(ty)?, operands.source(ty)?);
            Ok(op(Collective::Reduce(kind), (Some(result), None), [a, zero, zero], operands.source(Type::U32)?))
        }
        "elect" => {
            let results = operands.result_pair(Type::U32)?;
            Ok(op(Collective::Elect, results, [zero; 3], operands.source(Type::U32)?))
        }
        _ => Err(format!("unknown opcode {name}")),
    }
}
