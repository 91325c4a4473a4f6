//! Control flow: bra, call, ret, exit, trap; and what only hints: nanosleep, griddepcontrol.

use super::{Mods, Operand, Operands, Refusal, Type};
use crate::program::Op;

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    // A promise that the lanes agree, which changes nothing.
    mods.flag("uni");
    match name {
        // The parser puts the target in place of this number.
        "bra" => match operands.next()? {
            Operand::Name(_) => Ok(Op::Branch(0)),
            other => Err(format!("{other:?} is no label")),
        },
        "ret" => Ok(Op::Return),
        "exit" => Ok(Op::Exit),
        "trap" => Ok(Op::Trap),
        "nanosleep" => {
            mods.ty()?;
            operands.source(Type::U32)?;
            Ok(Op::Nothing)
        }
        // Kernels run one after another, so the one before is complete.
        "griddepcontrol" => match mods.flag("wait") || mods.flag("launch_dependents") {
            true => Ok(Op::Nothing),
            false => Err("neither .wait nor .launch_dependents".into()),
        },
        _ => Err(format!("unknown opcode {name}")),
    }
}
