//! What of a comparison can run on a GPU: programs that are libtorch's operators throughout, and what they are compared in.

use isonorm_oracles::claims::{By, Comparison, Pair, Part, Program, Quantity};

/// The part of a comparison that runs on a GPU.
///
/// # Errors
/// Why there is none.
pub fn on_gpu(comparison: &'static Comparison) -> Result<&'static Comparison, &'static str> {
    if comparison.quantity == Quantity::PeakMemory {
        return Err("the memory of a process is counted, which is not the GPU's");
    }
    let runs =
        |program: &&Program| comparison.shapes.iter().all(|&shape| (program.parts)(shape).iter().all(is_libtorch));
    let programs: Vec<Program> = comparison.programs.iter().filter(runs).copied().collect();
    let there = |name: &str| programs.iter().any(|program| program.name == name);
    let whole = |pair: &&Pair| there(pair.contender) && there(pair.baseline) && pair.limit.is_none_or(there);
    let pairs: Vec<Pair> = comparison.pairs.iter().filter(whole).copied().collect();
    if pairs.is_empty() {
        return Err("what is compared are loops and kernels of the processor");
    }
    // A few small lists, once for each run of the command.
    let (programs, pairs) = (programs.leak(), pairs.leak());
    Ok(Box::leak(Box::new(Comparison { programs, pairs, ..*comparison })))
}

/// Whether a part is made of libtorch's operators, which run wherever the tensors are.
fn is_libtorch(part: &Part) -> bool {
    let operators = |by: By| matches!(by, By::Steps | By::Libtorch);
    match part {
        Part::Norm { by, .. } | Part::Recurrent { norm: Some((_, by)), .. } => operators(*by),
        Part::IntegerLayerNorm { .. } => false,
        Part::Residual(parts) | Part::Before(parts) => parts.iter().all(is_libtorch),
        Part::Sum(branches) => branches.iter().flatten().all(is_libtorch),
        _ => true,
    }
}
