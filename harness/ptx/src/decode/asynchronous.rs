//! Asynchronous copies and the barriers that await them: cp.async, cp.async.bulk, mbarrier.

use super::{
    Mods, Operands, Refusal, Type,
    memory::{space, strength},
};
use crate::program::{Address, Mbarrier, Op, Slot, Space};

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    match name {
        "mbarrier" => mbarrier(mods, operands),
        _ if !mods.flag("async") => Err("cp without .async".into()),
        _ if mods.flag("bulk") => bulk(mods, operands),
        _ => copy(mods, operands),
    }
}

fn constant(operands: &mut Operands) -> Result<u64, Refusal> {
    match operands.next()? {
        super::Operand::Integer(value) => Ok(value),
        other => Err(format!("{other:?} is no constant")),
    }
}

fn copy(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if mods.flag("commit_group") {
        return Ok(Op::CommitCopies);
    }
    if mods.flag("wait_all") {
        return Ok(Op::WaitCopies(None));
    }
    if mods.flag("wait_group") {
        return Ok(Op::WaitCopies(Some(constant(operands)?)));
    }
    if mods.flag("mbarrier") {
        if !mods.flag("arrive") {
            return Err("cp.async.mbarrier without .arrive".into());
        }
        let counted = !mods.flag("noinc");
        let space = shared(mods)?;
        mods.ty()?;
        let address = operands.address(space)?;
        return Ok(Op::Mbarrier { address, action: Mbarrier::ArriveAfterCopies { counted } });
    }
    let once = mods.flag("cg");
    let hint = mods.flag("L2::cache_hint");
    mods.hints();
    if !(mods.flag("shared") || mods.flag("shared::cta")) || !mods.flag("global") {
        return Err("cp.async goes from global to shared memory".into());
    }
    let (to, from) = (operands.address(Space::Shared)?, operands.address(Space::Global)?);
    let bytes = constant(operands)? as u32;
    if !(bytes == 16 || (!once && matches!(bytes, 4 | 8))) {
        return Err(format!("cp.async of {bytes} bytes"));
    }
    let (mut source_bytes, mut skip) = (None, None);
    if operands.list.len() > usize::from(hint) {
        // Bytes to read, or a predicate: then nothing is read.
        match operands.next()? {
            super::Operand::Register { slot, ty } if ty == Type::PREDICATE => skip = Some(slot),
            other => source_bytes = Some(operands.value(other, Type::U32)?),
        }
    }
    if hint {
        operands.source(Type::U64)?;
    }
    Ok(Op::CopyAsync { to, from, bytes, source_bytes, skip })
}

fn bulk(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if mods.flag("commit_group") {
        return Ok(Op::BulkCommit);
    }
    if mods.flag("wait_group") {
        // Copies read when they are issued, so there is nothing to tell `.read` apart by.
        mods.flag("read");
        return Ok(Op::BulkWait(constant(operands)?));
    }
    let hint = mods.flag("L2::cache_hint");
    let (to, from) = (space(mods), space(mods));
    let barrier = mods.flag("mbarrier::complete_tx::bytes");
    let group = mods.flag("bulk_group");
    let known = match (to, from) {
        (Space::Cluster | Space::Shared, Space::Global) | (Space::Cluster, Space::Shared) => barrier && !group,
        (Space::Global, Space::Shared) => group && !barrier,
        _ => false,
    };
    if !known {
        return Err("this bulk copy is not known".into());
    }
    let (to, from) = (operands.address(to)?, operands.address(from)?);
    let bytes = operands.source(Type::U32)?;
    let space = if to.space == Space::Global { Space::Shared } else { to.space };
    let barrier = if barrier { Some(operands.address(space)?) } else { None };
    if hint {
        operands.source(Type::U64)?;
    }
    Ok(Op::BulkCopy { to, from, bytes, barrier })
}

/// Takes the space of an mbarrier.
fn shared(mods: &mut Mods) -> Result<Space, Refusal> {
    match space(mods) {
        s @ (Space::Shared | Space::Cluster | Space::Generic) => Ok(s),
        other => Err(format!("no mbarrier lies in {other:?} memory")),
    }
}

fn mbarrier(mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    let (_, _) = strength(mods);
    let names = ["init", "inval", "arrive", "arrive_drop", "expect_tx", "test_wait", "try_wait"];
    let list: Vec<&str> = names.into_iter().filter(|n| mods.flag(n)).collect();
    let parity = mods.flag("parity");
    let space = shared(mods)?;
    mods.hints();
    if !(mods.flag("b64")) {
        return Err("mbarrier without .b64".into());
    }
    let one = operands.registry.constant(1);
    let op = |address: Address, action| Ok(Op::Mbarrier { address, action });
    match list[..] {
        ["init"] => {
            let address = operands.address(space)?;
            op(address, Mbarrier::Init { count: operands.source(Type::U32)? })
        }
        ["inval"] => op(operands.address(space)?, Mbarrier::Invalidate),
        ["expect_tx"] => {
            let address = operands.address(space)?;
            op(address, Mbarrier::Expect { bytes: operands.source(Type::U32)? })
        }
        ["arrive"] | ["arrive_drop"] | ["arrive", "expect_tx"] => {
            // Only a local barrier has a state to return.
            let remote = space == Space::Cluster;
            let state: Option<Slot> = match operands.list.front() {
                Some(super::Operand::Memory(..)) => None,
                _ => operands.optional_result(Type::U64)?,
            };
            let address = operands.address(space)?;
            let mut count = one;
            let mut expect = None;
            if list.len() == 2 {
                expect = Some(operands.source(Type::U32)?);
            } else if operands.more() {
                count = operands.source(Type::U32)?;
            }
            op(address, Mbarrier::Arrive { count, expect, state, remote, drop: list[0] == "arrive_drop" })
        }
        ["test_wait"] | ["try_wait"] => {
            let done = operands.result(Type::PREDICATE)?;
            let address = operands.address(space)?;
            let state = operands.source(if parity { Type::U32 } else { Type::U64 })?;
            let wait = list[0] == "try_wait";
            if wait && operands.more() {
                operands.source(Type::U32)?;
            }
            op(address, Mbarrier::Test { state, parity, done, wait })
        }
        _ => Err("unknown operation on an mbarrier".into()),
    }
}
