//! Barriers and fences: bar, barrier, barrier.cluster, bar.warp.sync, fence, membar.

use super::{Mods, Operand, Operands, Refusal, Type};
use crate::program::{BarrierKind, Collective, Op};

pub(super) fn decode(name: &str, mods: &mut Mods, operands: &mut Operands) -> Result<Op, Refusal> {
    if matches!(name, "fence" | "membar") {
        return fence(name, mods);
    }
    let zero = operands.registry.constant(0);
    if mods.flag("warp") {
        if !mods.flag("sync") || name != "bar" {
            return Err("unknown barrier of a warp".into());
        }
        let mask = operands.source(Type::U32)?;
        return Ok(Op::Collective { what: Collective::Barrier, result: None, second: None, operands: [zero; 3], mask });
    }
    let aligned = mods.flag("aligned") || name == "bar";
    if mods.flag("cluster") {
        let (acquire, release, relaxed) = (mods.flag("acquire"), mods.flag("release"), mods.flag("relaxed"));
        return match (mods.flag("arrive"), mods.flag("wait")) {
            (true, false) if name == "barrier" && !acquire => {
                Ok(Op::ClusterArrive { aligned, relaxed: relaxed && !release })
            }
            (false, true) if name == "barrier" && !release && !relaxed => Ok(Op::ClusterWait),
            _ => Err("unknown barrier of a cluster".into()),
        };
    }
    mods.flag("cta");
    let kind = match (mods.flag("sync"), mods.flag("arrive"), mods.flag("red")) {
        (true, false, false) => BarrierKind::Sync,
        (false, true, false) => BarrierKind::Arrive,
        (false, false, true) => mods
            .one_of(&[("popc", BarrierKind::Count), ("and", BarrierKind::And), ("or", BarrierKind::Or)])
            .ok_or("no reduction")?,
        _ => return Err("neither .sync nor .arrive nor .red".into()),
    };
    let reduces = matches!(kind, BarrierKind::Count | BarrierKind::And | BarrierKind::Or);
    let result = if reduces { Some(operands.result(mods.ty()?)?) } else { None };
    let id = operands.source(Type::U32)?;
    let mut count = None;
    if operands.list.len() > usize::from(reduces) {
        count = Some(operands.source(Type::U32)?);
    }
    let mut predicate = zero;
    if reduces {
        predicate = match operands.next()? {
            Operand::Not(_) => return Err("a negated predicate of bar.red is not known".into()),
            o => operands.value(o, Type::PREDICATE)?,
        };
    }
    if kind == BarrierKind::Arrive && count.is_none() {
        return Err("bar.arrive without a count".into());
    }
    Ok(Op::Barrier { kind, aligned, id, count, predicate, result })
}

/// Fences order accesses without making threads meet; what they order is told by the strong accesses around them.
fn fence(name: &str, mods: &mut Mods) -> Result<Op, Refusal> {
    if name == "membar" && mods.one_of(&[("cta", ()), ("gl", ()), ("sys", ())]).is_some() {
        return Ok(Op::Fence);
    }
    let mut kinds = vec!["acq_rel", "sc", "acquire", "release", "mbarrier_init", "proxy", "async"];
    kinds.extend([
        "async::generic",
        "alias",
        "cta",
        "cluster",
        "gpu",
        "sys",
        "async.global",
        "global",
        "shared::cta",
        "shared::cluster",
    ]);
    if mods.0.is_empty() || name == "membar" {
        return Err("unknown kind of fence".into());
    }
    for kind in kinds {
        mods.flag(kind);
    }
    Ok(Op::Fence)
}
